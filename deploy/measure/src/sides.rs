//! Which sides of a comparison are measured, and how closely ours is looked at: options of every measurement beside a peer.

use anyhow::Result;
use clap::Args;
use image_builder::Built;

use crate::{Images, Machine};

/// Which sides are measured, and how closely.
#[derive(Args, Clone, Debug)]
pub struct Sides {
    /// Only the peer.
    #[arg(long, conflicts_with = "only_ours")]
    only_peer: bool,
    /// Only the appliance.
    #[arg(long)]
    only_ours: bool,
    /// Also say which functions of which of the appliance's images the instructions are executed in.
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    /// How many of the hottest blocks of code a profile lists.
    #[arg(long, default_value_t = 40)]
    blocks: usize,
}

impl Sides {
    /// Whether the appliance is measured.
    pub fn has_ours(&self) -> bool {
        !self.only_peer
    }

    /// Whether the peer is measured.
    pub fn has_peer(&self) -> bool {
        !self.only_ours
    }

    /// Whether the appliance's instructions are to be counted by block of code.
    pub fn profile(&self) -> bool {
        self.profile
    }

    /// The images of the running appliance, when a profile of them is wanted.
    ///
    /// # Errors
    /// As [`Images::of`].
    pub fn images(&self, built: &Built, machine: &Machine) -> Result<Option<Images>> {
        if !self.profile {
            return Ok(None);
        }
        Images::of(built, &machine.lab().report().serial, self.blocks).map(Some)
    }
}
