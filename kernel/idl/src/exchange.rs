//! `#[derive(Exchange)]`, `#[derive(Share)]` and `#[derive(Plain)]`.
//!
//! The bound is put on every field's type, generic or not, so a field that may not cross is a compile error at the field.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Result};

/// All field types, in order.
fn field_types(input: &DeriveInput) -> Result<Vec<syn::Type>> {
    let fields: Vec<&Fields> = match &input.data {
        Data::Struct(data) => vec![&data.fields],
        Data::Enum(data) => data.variants.iter().map(|variant| &variant.fields).collect(),
        Data::Union(_) => {
            return Err(Error::new_spanned(
                input,
                "a union can hide a pointer and may not cross",
            ));
        }
    };
    Ok(fields
        .into_iter()
        .flat_map(|fields| fields.iter().map(|field| field.ty.clone()))
        .collect())
}

/// Statements that transfer every field of one variant, and the pattern that binds them.
fn transfer(fields: &Fields) -> (TokenStream, TokenStream) {
    let names: Vec<_> = (0..fields.len())
        .map(|index| format_ident!("field{index}"))
        .collect();
    let pattern = match fields {
        Fields::Named(named) => {
            let idents = named.named.iter().map(|field| &field.ident);
            quote!({ #(#idents: #names),* })
        }
        Fields::Unnamed(_) => quote!((#(#names),*)),
        Fields::Unit => quote!(),
    };
    let body = quote! {
        #(
            // SAFETY: The caller's promise for the whole holds for each of its fields.
            unsafe { ::rref::Exchange::transfer(#names, to) };
        )*
    };
    (pattern, body)
}

/// Proves the bound for every field where it is named, so that the error points there.
fn assertions(input: &DeriveInput, trait_name: &TokenStream) -> Result<TokenStream> {
    let types = field_types(input)?;
    let name = &input.ident;
    let (generics, type_generics, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        const _: () = {
            fn bound<T: #trait_name>() {}
            #[allow(dead_code)]
            fn fields #generics () #bounds {
                let _ = ::core::marker::PhantomData::<#name #type_generics>;
                #(bound::<#types>();)*
            }
        };
    })
}

pub fn expand_exchange(item: TokenStream) -> Result<TokenStream> {
    let mut input: DeriveInput = syn::parse2(item)?;
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(::rref::Exchange));
    }
    let name = &input.ident;
    let arms = match &input.data {
        Data::Struct(data) => {
            let (pattern, body) = transfer(&data.fields);
            vec![quote!(#name #pattern => { #body })]
        }
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                let (pattern, body) = transfer(&variant.fields);
                let variant = &variant.ident;
                quote!(#name::#variant #pattern => { #body })
            })
            .collect(),
        Data::Union(_) => Vec::new(),
    };
    let checks = assertions(&input, &quote!(::rref::Exchange))?;
    let (generics, type_generics, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #checks
        // SAFETY: Every field is `Exchange` (asserted above), and `transfer` passes on to each.
        unsafe impl #generics ::rref::Exchange for #name #type_generics #bounds {
            #[inline(always)]
            unsafe fn transfer(&self, to: ::rref::OwnerId) {
                let _ = to;
                match self { #(#arms)* }
            }
        }
    })
}

pub fn expand_share(item: TokenStream) -> Result<TokenStream> {
    let mut input: DeriveInput = syn::parse2(item)?;
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(::rref::Share));
    }
    let name = &input.ident;
    let checks = assertions(&input, &quote!(::rref::Share))?;
    let (generics, type_generics, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #checks
        const _: () = assert!(!::core::mem::needs_drop::<#name>(), "a shared type needs no drop");
        // SAFETY: Every field is `Share` (asserted above), and the type needs no drop.
        unsafe impl #generics ::rref::Share for #name #type_generics #bounds {}
    })
}

pub fn expand_plain(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    if !matches!(input.data, Data::Struct(_)) || !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "a plain type is a struct without type parameters: not every number is a variant",
        ));
    }
    let mut is_laid_out = false;
    for attribute in input
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("repr"))
    {
        attribute.parse_nested_meta(|meta| {
            is_laid_out |= meta.path.is_ident("C") || meta.path.is_ident("transparent");
            if meta.path.is_ident("align") {
                let argument;
                syn::parenthesized!(argument in meta.input);
                argument.parse::<syn::LitInt>()?;
            }
            Ok(())
        })?;
    }
    if !is_laid_out {
        return Err(Error::new_spanned(
            &input.ident,
            "a plain type has a layout: #[repr(C)] or #[repr(transparent)]",
        ));
    }
    let types = field_types(&input)?;
    let checks = assertions(&input, &quote!(::rref::Plain))?;
    let name = &input.ident;
    Ok(quote! {
        #checks
        const _: () = assert!(
            ::core::mem::size_of::<#name>() == 0 #(+ ::core::mem::size_of::<#types>())*,
            "a plain type has no padding"
        );
        // SAFETY: Every field is `Plain` (asserted above), and there is nothing between or behind them (asserted too).
        unsafe impl ::rref::Plain for #name {}
    })
}
