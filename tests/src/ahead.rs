//! Builds what the tests boot before they do, for who has something else to do meanwhile (`cargo xtask test`).
//!
//! Nothing here is needed: each test builds what it needs, and finds it built then.

use anyhow::Result;
use image_builder::Options;

use crate::context::Context;
use crate::{attack_injector, attack_matrix, live_update};

/// In the order in which the tests need it.
pub fn build(context: &Context) -> Result<()> {
    image_builder::build(&Options::new(&context.root))?;
    attack_matrix::build(context)?;
    attack_injector::build(context)?;
    live_update::build_short_lived(context)
}
