//! Self tests.
