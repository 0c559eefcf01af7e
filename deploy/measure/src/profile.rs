//! Which functions of which image a load's instructions were executed in: for whoever wants fewer of them.
//!
//! The instruction counter counts by address. Kernel and domains are matched by their ELF files' symbols; where the
//! kernel put a domain is in its log. Blocks are known by their first instruction, and inlined code counts as its
//! caller's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use image_builder::Built;
use kernel::symbols::SymbolTable;
use lab::InstructionReading;

/// Images are matched below this distance from their base; the kernel leaves more than that between two domains only when
/// they are larger.
const LARGEST_IMAGE: u64 = 64 << 20;
/// Log lines that are looked through for the places of images: all that a boot writes.
const LOG_LINES: u32 = 2000;
/// Functions below this share of the load aren't listed.
const SMALLEST_SHARE: f64 = 0.002;

struct Image {
    name: String,
    base: u64,
    symbols: Vec<u8>,
}

/// The images of a running appliance.
pub struct Images {
    /// By base, ascending.
    images: Vec<Image>,
    /// How many of the hottest blocks are listed.
    listed_blocks: usize,
}

/// A load's instructions.
pub struct Profile<'a> {
    images: &'a Images,
    blocks: BTreeMap<u64, u64>,
    units: u64,
    unit: &'a str,
}

impl Images {
    /// Reads the symbols of what was booted and asks the appliance on the serial console's socket where it put it.
    ///
    /// # Errors
    /// When a file can't be read, or the appliance doesn't answer.
    pub fn of(built: &Built, console: &Path, listed_blocks: usize) -> Result<Self> {
        let symbols = |path: &Path| -> Result<Vec<u8>> {
            let file = fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
            embed_symbols::table(&file)
        };
        let mut images = vec![Image {
            name: "kernel".to_owned(),
            base: 0,
            symbols: symbols(&built.kernel)?,
        }];
        let log = lab::run_command(console, &format!("log {LOG_LINES}"), Duration::from_secs(30))?;
        for (name, base) in log.lines().filter_map(place) {
            if let Some(elf) = built.elves.get(name) {
                images.push(Image {
                    symbols: symbols(elf)?,
                    name: name.to_owned(),
                    base,
                });
            }
        }
        images.sort_by_key(|image| image.base);
        Ok(Self {
            images,
            listed_blocks,
        })
    }

    /// What was executed between two readings, for each of `units`.
    pub fn profile<'a>(
        &'a self,
        before: &InstructionReading,
        after: &InstructionReading,
        units: u64,
        unit: &'a str,
    ) -> Profile<'a> {
        Profile {
            images: self,
            blocks: after.blocks_since(before),
            units: units.max(1),
            unit,
        }
    }

    /// Image, function and offset in the function.
    fn find(&self, address: u64) -> (&str, &str, u64) {
        let domain =
            self.images.iter().rev().find(|image| {
                image.base <= address && (image.base == 0 || address - image.base < LARGEST_IMAGE)
            });
        let Some(image) = domain else {
            return ("?", "?", 0);
        };
        let found = SymbolTable::parse(&image.symbols).and_then(|table| table.find(address - image.base));
        match found {
            Some(found) => (&image.name, found.name, found.offset),
            None => (&image.name, "?", address - image.base),
        }
    }
}

/// Name and base in a line of the log that tells where an image is.
fn place(line: &str) -> Option<(&str, u64)> {
    let (_, rest) = line.split_once("image ")?;
    let (name, base) = rest.trim_end().split_once(" at 0x")?;
    Some((name, u64::from_str_radix(base, 16).ok()?))
}

impl fmt::Display for Profile<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.blocks.values().sum();
        let each = |count: u64| count as f64 / self.units as f64;
        let mut images: BTreeMap<&str, u64> = BTreeMap::new();
        let mut functions: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (&address, &count) in &self.blocks {
            let (image, function, _) = self.images.find(address);
            *images.entry(image).or_default() += count;
            *functions.entry((image, function)).or_default() += count;
        }
        let mut images: Vec<_> = images.into_iter().collect();
        images.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        writeln!(formatter, "\nInstructions a {}, idling included", self.unit)?;
        for (image, count) in images {
            writeln!(formatter, "{:>10.1}  {image}", each(count))?;
        }
        let mut functions: Vec<_> = functions.into_iter().collect();
        functions.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        writeln!(formatter, "\nBy function")?;
        for ((image, function), count) in functions {
            if count as f64 >= total as f64 * SMALLEST_SHARE {
                writeln!(formatter, "{:>10.1}  {image:<12} {function}", each(count))?;
            }
        }
        let mut blocks: Vec<_> = self.blocks.iter().collect();
        blocks.sort_by_key(|&(_, count)| std::cmp::Reverse(*count));
        writeln!(formatter, "\nHottest blocks")?;
        for (&address, &count) in blocks.into_iter().take(self.images.listed_blocks) {
            let (image, function, offset) = self.images.find(address);
            writeln!(
                formatter,
                "{:>10.1}  {address:#018x} {image:<12} {function}+{offset:#x}",
                each(count)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_image_is_read_from_the_log() {
        let line = "[    0.123456] kernel: image nic-shadow at 0xffffc00000123000";
        assert_eq!(place(line), Some(("nic-shadow", 0xffff_c000_0012_3000)));
        assert_eq!(place("image of something else"), None);
    }
}
