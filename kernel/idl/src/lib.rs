//! The two macros of `rref`: `#[interface]` and `#[derive(Exchange, Share, Plain)]`.
//!
//! They only write down what a person would write by hand, with the bounds that make it sound; the compiler then checks
//! those (docs/soundness.md, invariant 2).

mod exchange;
mod interface;

use proc_macro::TokenStream;

/// Makes a trait an interface: checks its methods and generates its proxy.
///
/// Every method takes `&self`, exchangeable arguments by value or `&RRef<T>`, and returns a `Result` whose error can be made
/// from an `RpcError`.
#[proc_macro_attribute]
pub fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    interface::expand(arguments.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Implements `Exchange` for a struct or enum, requiring it of every field.
#[proc_macro_derive(Exchange)]
pub fn derive_exchange(item: TokenStream) -> TokenStream {
    exchange::expand_exchange(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Implements `Plain` for a `repr(C)` or `repr(transparent)` struct, requiring it of every field and that there is no padding.
#[proc_macro_derive(Plain)]
pub fn derive_plain(item: TokenStream) -> TokenStream {
    exchange::expand_plain(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Implements `Share` for a struct or enum, requiring it of every field.
#[proc_macro_derive(Share)]
pub fn derive_share(item: TokenStream) -> TokenStream {
    exchange::expand_share(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
