//! The types that have elements.
