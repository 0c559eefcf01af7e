//! What the domains of attack images say to each other. No part of a release.
//!
//! [`victim`]: a domain that faults as it is told. [`orders`]: what a victim asks for when it starts.
#![no_std]
#![forbid(unsafe_code)]

pub mod orders;
pub mod victim;

use rref::{Interface, ProxyFactory};

/// Every interface of attack images: what their kernel can make proxies of, beside the release's.
pub const FACTORIES: &[ProxyFactory] = &[<dyn victim::Victim>::FACTORY, <dyn orders::Orders>::FACTORY];
