//! `#[interface]`: from a trait to its proxy.
//!
//! Attributes say how long a call may take: `#[deadline(ms = 20)]` or `#[deadline(none)]` of a method, `#[interface(deadline_ms = 20)]` for
//! methods without one; the manifest decides about the rest, and can override each.
//!
//! For each method the proxy makes one crossing: arguments by value travel as a tuple whose ownership moves, lent `&RRef`
//! arguments are captured. Everything of substance is in `rref::crossing`.

use std::path::Path;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::{Error, FnArg, ItemTrait, LitInt, Pat, Result, ReturnType, TraitItem, Type};

struct Method {
    proxy: TokenStream,
    checks: TokenStream,
    description: TokenStream,
}

/// A value of `abi::Deadline`.
fn milliseconds(value: &LitInt) -> Result<TokenStream> {
    match value.base10_parse::<u32>()? {
        0 => Err(Error::new_spanned(
            value,
            "a deadline is at least 1 ms; `none` is no deadline",
        )),
        ms => Ok(quote!(::rref::handle::generated::Deadline::Ms(#ms))),
    }
}

/// Takes the `#[deadline]` of a method.
fn deadline(item: &mut syn::TraitItemFn, default: &TokenStream) -> Result<TokenStream> {
    let mut found = None;
    for attribute in item
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("deadline"))
    {
        if found.is_some() {
            return Err(Error::new_spanned(attribute, "a method has one deadline"));
        }
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("none") {
                found = Some(quote!(::rref::handle::generated::Deadline::Never));
                return Ok(());
            }
            if meta.path.is_ident("ms") {
                found = Some(milliseconds(&meta.value()?.parse()?)?);
                return Ok(());
            }
            Err(meta.error("a deadline is `ms = N` or `none`"))
        })?;
        if found.is_none() {
            return Err(Error::new_spanned(attribute, "a deadline is `ms = N` or `none`"));
        }
    }
    item.attrs
        .retain(|attribute| !attribute.path().is_ident("deadline"));
    Ok(found.unwrap_or_else(|| default.clone()))
}

/// What `#[interface(deadline_ms = N)]` says.
fn default_deadline(arguments: TokenStream) -> Result<TokenStream> {
    let mut default = quote!(::rref::handle::generated::Deadline::Default);
    let parser = syn::meta::parser(|meta| {
        if !meta.path.is_ident("deadline_ms") {
            return Err(meta.error("#[interface] takes `deadline_ms = N` only"));
        }
        default = milliseconds(&meta.value()?.parse()?)?;
        Ok(())
    });
    parser.parse2(arguments)?;
    Ok(default)
}

fn method(
    interface: &syn::Ident,
    index: usize,
    item: &syn::TraitItemFn,
    deadline: &TokenStream,
) -> Result<Method> {
    let signature = &item.sig;
    if signature.asyncness.is_some() || !signature.generics.params.is_empty() || signature.unsafety.is_some()
    {
        return Err(Error::new_spanned(
            signature,
            "an interface method is a plain safe function without generics",
        ));
    }
    if item.default.is_some() {
        return Err(Error::new_spanned(
            item,
            "an interface method has no default body: it would run in the caller",
        ));
    }
    let mut inputs = signature.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() && receiver.mutability.is_none() => {}
        _ => {
            return Err(Error::new_spanned(
                signature,
                "an interface method takes `&self` first",
            ));
        }
    }
    let ReturnType::Type(_, output) = &signature.output else {
        return Err(Error::new_spanned(
            signature,
            "an interface method returns a Result that can hold an RpcError",
        ));
    };
    let name = &signature.ident;
    let (mut moved, mut moved_types, mut call, mut checks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for input in inputs {
        let FnArg::Typed(argument) = input else { continue };
        let Pat::Ident(pattern) = &*argument.pat else {
            return Err(Error::new_spanned(
                argument,
                "an argument of an interface method is a plain name",
            ));
        };
        let ident = &pattern.ident;
        call.push(quote!(#ident));
        match &*argument.ty {
            Type::Reference(reference) if reference.mutability.is_none() => {
                let lent = &reference.elem;
                checks.push(quote! {
                    {
                        const fn lent<T: ::rref::Share>(_: ::core::marker::PhantomData<::rref::RRef<T>>) {}
                        lent(::core::marker::PhantomData::<#lent>);
                    }
                });
            }
            Type::Reference(reference) => {
                return Err(Error::new_spanned(
                    reference,
                    "an argument is moved, or lent as `&RRef<T>`",
                ));
            }
            by_value => {
                checks.push(quote!(::rref::handle::generated::assert_exchange::<#by_value>();));
                moved.push(quote!(#ident));
                moved_types.push(by_value.clone());
            }
        }
    }
    checks.push(quote!(::rref::handle::generated::assert_outcome::<#output>();));
    let (tuple, tuple_pattern) = if moved.is_empty() {
        (quote!(()), quote!(()))
    } else {
        (quote!((#(#moved,)*)), quote!((#(#moved,)*)))
    };
    // Of the macro's own hygiene, so that an argument may have this name.
    let object = syn::Ident::new("object", proc_macro2::Span::mixed_site());
    let (interface_name, method_name) = (interface.to_string(), name.to_string());
    let proxy = quote! {
        // What faults at the stack's end in this section has only begun (`rref::crossing`).
        #[unsafe(link_section = ".text.proxies")]
        #signature {
            const METHOD: &::rref::handle::generated::Method =
                &<dyn #interface as ::rref::Interface>::FACTORY.methods[#index];
            ::rref::crossing::cross(&self.target, METHOD, #tuple, |#object, #tuple_pattern| #object.#name(#(#call),*))
        }
    };
    Ok(Method {
        proxy,
        checks: quote!(#(#checks)*),
        description: quote! {
            ::rref::handle::generated::Method {
                interface: #interface_name,
                name: #method_name,
                deadline: #deadline,
            }
        },
    })
}

/// Whether a package in `directory` may define interfaces: not a domain. The kernel knows an interface by its name, so one that a domain made up
/// under a name that exists would be taken for the other, whose methods are different.
fn may_define(directory: &Path) -> bool {
    // The project's root is above `kernel/idl`.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let inside = root.and_then(|root| directory.strip_prefix(root).ok());
    let layer = inside.and_then(|inside| inside.iter().next()?.to_str());
    !matches!(layer, Some("domains" | "drivers" | "rv6"))
}

pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let default = default_deadline(arguments)?;
    let mut item: ItemTrait = syn::parse2(item)?;
    if !std::env::var_os("CARGO_MANIFEST_DIR").is_some_and(|directory| may_define(Path::new(&directory))) {
        return Err(Error::new_spanned(
            &item.ident,
            "an interface is a contract between domains: define it in interface/",
        ));
    }
    if !item.generics.params.is_empty() || !item.supertraits.is_empty() {
        return Err(Error::new_spanned(
            &item.ident,
            "an interface has no type parameters and no supertraits",
        ));
    }
    item.supertraits = syn::parse_quote!(::core::marker::Send + ::core::marker::Sync);
    let interface = item.ident.clone();
    let methods = item
        .items
        .iter_mut()
        .enumerate()
        .map(|(index, entry)| match entry {
            TraitItem::Fn(function) => {
                let deadline = deadline(function, &default)?;
                method(&interface, index, function, &deadline)
            }
            other => Err(Error::new_spanned(other, "an interface has methods only")),
        })
        .collect::<Result<Vec<_>>>()?;
    let (mut proxies, mut checks, mut descriptions) = (Vec::new(), Vec::new(), Vec::new());
    for method in methods {
        proxies.push(method.proxy);
        checks.push(method.checks);
        descriptions.push(method.description);
    }
    let name = &item.ident;
    let visibility = &item.vis;
    let proxy = format_ident!("{name}Proxy");
    let text = name.to_string();
    let doc = format!("What every crossing into `{name}` goes through. Made by the kernel.");
    Ok(quote! {
        #item

        #[doc = #doc]
        #visibility struct #proxy {
            target: ::rref::crossing::Target<dyn #name>,
        }

        impl #name for #proxy {
            #(#proxies)*
        }

        const _: () = { #(#checks)* };

        // SAFETY: `split` and `join` are inverse; two interfaces of one name are refused by `rref::registry!`.
        unsafe impl ::rref::Interface for dyn #name {
            const NAME: &'static str = #text;
            const FACTORY: ::rref::ProxyFactory = ::rref::ProxyFactory {
                name: #text,
                methods: &[#(#descriptions),*],
                make: {
                    /// # Safety
                    /// As `ProxyFactory::make`.
                    unsafe fn make(
                        header: &'static ::rref::handle::generated::DomainHeader,
                        incarnation: ::rref::OwnerId,
                        object: ::rref::handle::generated::RawObject,
                    ) -> ::rref::handle::generated::RawObject {
                        // SAFETY: Passed on from the caller.
                        unsafe {
                            ::rref::handle::make_proxy::<dyn #name, #proxy>(
                                header,
                                incarnation,
                                object,
                                |target| #proxy { target },
                                |proxy| proxy as *const dyn #name,
                            )
                        }
                    }
                    make
                },
                free: {
                    /// # Safety
                    /// As `ProxyFactory::free`.
                    unsafe fn free(raw: ::rref::handle::generated::RawObject) {
                        // SAFETY: The caller passes what `make` returned, once.
                        let proxy = unsafe { <dyn #name as ::rref::Interface>::from_raw(raw) };
                        // SAFETY: `make` made it from a `Box` of this type.
                        drop(unsafe { ::rref::handle::generated::Box::from_raw(proxy.cast_mut()) });
                    }
                    free
                },
            };

            fn into_raw(object: *const Self) -> ::rref::handle::generated::RawObject {
                ::rref::handle::generated::split(object)
            }

            unsafe fn from_raw(raw: ::rref::handle::generated::RawObject) -> *const Self {
                // SAFETY: Passed on from the caller.
                unsafe { ::rref::handle::generated::join(raw) }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_define_no_interfaces() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .expect("the root");
        for domain in ["domains/net/maglev", "drivers/ixgbe", "rv6/shell"] {
            assert!(!may_define(&root.join(domain)), "{domain}");
        }
        for other in ["interface", "kernel/rref", "tests/attack/interface"] {
            assert!(may_define(&root.join(other)), "{other}");
        }
        assert!(may_define(Path::new("/elsewhere/domains")));
    }
}
