//! The boot archive: a USTAR file with everything that is loaded beside the kernel.
//!
//! `manifest` (signed system manifest), `config/appliance.toml`, `domains/NAME` (signed images), `spare/NAME` (others to
//! update to), `site/…` (what httpd
//! serves), `site.time` (when that last changed, in decimal seconds since 1970). Entries have no times and no owners, so the same content gives the same archive.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

/// Files by their name in the archive, in the order in which they were added.
#[derive(Default)]
pub struct BootArchive {
    entries: Vec<(String, Content)>,
}

/// Large files of a site stay on disk until the archive is written.
enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl BootArchive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads an archive, for tools and tests that change one.
    ///
    /// # Errors
    /// When the file can't be read or is no archive.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("{} can't be opened", path.display()))?;
        let mut archive = Self::new();
        for entry in tar::Archive::new(file).entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path()?.to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            archive.add(&name, bytes)?;
        }
        Ok(archive)
    }

    /// Adds a file, in the place of one of the same name if there is one.
    ///
    /// # Errors
    /// When the name is no relative path.
    pub fn add(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.put(name, Content::Bytes(bytes))
    }

    /// Adds all files below a folder, sorted by name, under `prefix`.
    ///
    /// # Errors
    /// When the folder can't be read or holds something that is neither file nor folder.
    pub fn add_folder(&mut self, prefix: &str, folder: &Path) -> Result<()> {
        let entries =
            fs::read_dir(folder).with_context(|| format!("the folder {} can't be read", folder.display()))?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        for path in paths {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                bail!("{}: the name is not UTF-8", path.display());
            };
            let name = format!("{prefix}/{name}");
            if path.is_dir() {
                self.add_folder(&name, &path)?;
            } else if path.is_file() {
                self.put(&name, Content::File(path))?;
            } else {
                bail!("{} is neither a file nor a folder", path.display());
            }
        }
        Ok(())
    }

    /// A file's content, if it is there and was not added from a folder.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.entries
            .iter()
            .find(|(known, _)| known == name)
            .and_then(|(_, content)| match content {
                Content::Bytes(bytes) => Some(bytes.as_slice()),
                Content::File(_) => None,
            })
    }

    /// The names in it, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Writes the archive and returns its size in bytes. A reader never sees a half-written one.
    ///
    /// # Errors
    /// When a file can't be read or written, or a name is too long for the format.
    pub fn write(&self, path: &Path) -> Result<u64> {
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let file = File::create(&partial).with_context(|| format!("{} can't be made", partial.display()))?;
        let mut builder = tar::Builder::new(BufWriter::new(file));
        for (name, content) in &self.entries {
            append(&mut builder, name, content).with_context(|| format!("packing {name}"))?;
        }
        builder.into_inner()?.flush()?;
        fs::rename(&partial, path).with_context(|| format!("{} can't be written", path.display()))?;
        Ok(fs::metadata(path)?.len())
    }

    fn put(&mut self, name: &str, content: Content) -> Result<()> {
        if name.is_empty()
            || name.starts_with('/')
            || name.split('/').any(|part| part.is_empty() || part == "..")
        {
            bail!("`{name}` can't be a name in the boot archive");
        }
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = content,
            None => self.entries.push((name.to_owned(), content)),
        }
        Ok(())
    }
}

/// When the newest file of a folder was last changed, in seconds since 1970; nothing if there is no file.
///
/// # Errors
/// When the folder can't be read.
pub fn last_change(folder: &Path) -> Result<Option<u64>> {
    let mut newest = None;
    for entry in
        fs::read_dir(folder).with_context(|| format!("the folder {} can't be read", folder.display()))?
    {
        let path = entry?.path();
        let time = if path.is_dir() {
            last_change(&path)?
        } else {
            let changed = fs::metadata(&path)?.modified()?;
            changed
                .duration_since(UNIX_EPOCH)
                .ok()
                .map(|since| since.as_secs())
        };
        newest = newest.max(time);
    }
    Ok(newest)
}

fn append(builder: &mut tar::Builder<impl Write>, name: &str, content: &Content) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o444);
    header.set_mtime(0);
    header
        .set_path(name)
        .context("the name is too long for the archive's format")?;
    match content {
        Content::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, bytes.as_slice())?;
        }
        Content::File(path) => {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            header.set_size(size);
            header.set_cksum();
            // A file that grows meanwhile must not spoil the entries behind it.
            builder.append(&header, file.take(size))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let site = directory.path().join("site");
        fs::create_dir_all(site.join("images")).unwrap();
        fs::write(site.join("index.html"), "hello").unwrap();
        fs::write(site.join("images/a.png"), vec![7; 100_000]).unwrap();
        let mut archive = BootArchive::new();
        archive.add("manifest", vec![1, 2, 3]).unwrap();
        archive.add_folder("site", &site).unwrap();
        let path = directory.path().join("boot.tar");
        let size = archive.write(&path).unwrap();
        assert_eq!(size % 512, 0);

        let again = BootArchive::read(&path).unwrap();
        assert_eq!(
            again.names().collect::<Vec<_>>(),
            ["manifest", "site/images/a.png", "site/index.html"]
        );
        assert_eq!(again.get("site/images/a.png"), Some([7; 100_000].as_slice()));
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let mut archive = BootArchive::new();
            archive.add("a", vec![1]).unwrap();
            archive.add("a", vec![2]).unwrap();
            archive.write(&directory.path().join(name)).unwrap();
            fs::read(directory.path().join(name)).unwrap()
        };
        assert_eq!(write("one"), write("two"));
    }

    #[test]
    fn the_newest_file_tells_the_time() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(last_change(directory.path()).unwrap(), None);
        fs::create_dir(directory.path().join("inner")).unwrap();
        for (name, seconds) in [("old", 1_000), ("inner/new", 2_000)] {
            let file = File::create(directory.path().join(name)).unwrap();
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds))
                .unwrap();
        }
        assert_eq!(last_change(directory.path()).unwrap(), Some(2_000));
    }

    #[test]
    fn names_stay_inside() {
        let mut archive = BootArchive::new();
        for name in ["", "/etc/passwd", "a/../b", "a//b"] {
            assert!(archive.add(name, Vec::new()).is_err(), "{name}");
        }
    }
}
