//! The site: files of the boot archive under `site/`, and what each says of itself.
//!
//! A path names a file, a folder with an `index.html`, or one of the server's own pages. Everything that is the same in each answer
//! with a file is written once, at the start: [`File::fields`].
//!
//! Validators (RFC 9110, 8.8): the archive's `site.time` (decimal seconds since 1970, when the site last changed) gives
//! Last-Modified. An ETag comes from a file's content: of all of it up to 1 MiB, of samples beyond that, since a start must
//! not read hundreds of megabytes. Samples miss changes, so a large file has an ETag only where `site.time` is part of it.

use crate::date;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::{BuildHasherDefault, Hasher};
use fnv::FnvHasher;
use hashbrown::HashMap;
use rref::BootBytes;

/// Files up to this length are read whole at the start.
const WHOLE_BYTES: usize = 1 << 20;
/// Of longer ones, this much of each megabyte and of the end.
const SAMPLE_BYTES: usize = 4096;

/// Of files up to this length, fields and content are kept in one piece, to be sent with one copy. Shorter than
/// `answer::HEAD_ROOM` by what the status line and the fields take.
const MESSAGE_BYTES: usize = 1024;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A file, by its index.
    File(u32),
    /// A folder with an index page, named without its last slash: the folder, by index.
    Folder(u32),
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
}

/// A file and the fields that describe it.
pub struct File {
    /// Its bytes.
    pub content: BootBytes,
    /// Length of `content`, bytes.
    pub length: u64,
    /// With quotes; empty when there is none.
    pub etag: String,
    /// Seconds since 1970.
    pub modified: Option<u64>,
    fields: String,
    message: Vec<u8>,
    type_start: usize,
    validators_start: usize,
}

impl File {
    fn new(path: &str, content: BootBytes, modified: Option<u64>) -> File {
        let length = content.as_slice().len();
        let etag = etag(content.as_slice(), modified);
        let mut fields = format!("Content-Length: {length}\r\n");
        let type_start = fields.len();
        fields.push_str("Content-Type: ");
        fields.push_str(content_type(path));
        fields.push_str("\r\nAccept-Ranges: bytes\r\n");
        let validators_start = fields.len();
        if !etag.is_empty() {
            fields.push_str("ETag: ");
            fields.push_str(&etag);
            fields.push_str("\r\n");
        }
        if let Some(time) = modified {
            fields.push_str("Last-Modified: ");
            fields.extend(date::format(time).map(char::from));
            fields.push_str("\r\n");
        }
        let message = if length <= MESSAGE_BYTES {
            [fields.as_bytes(), b"\r\n", content.as_slice()].concat()
        } else {
            Vec::new()
        };
        File {
            content,
            length: length as u64,
            etag,
            modified,
            fields,
            message,
            type_start,
            validators_start,
        }
    }

    /// Every field of an answer with the whole file.
    pub fn fields(&self) -> &[u8] {
        self.fields.as_bytes()
    }

    /// The same, the empty line and the content in one piece; empty for a file that isn't short.
    #[inline]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Without the length: for a part.
    pub fn fields_of_part(&self) -> &[u8] {
        self.fields.as_bytes().get(self.type_start..).unwrap_or_default()
    }

    /// Those that say which version it is: for an answer without content.
    pub fn validators(&self) -> &[u8] {
        self.fields
            .as_bytes()
            .get(self.validators_start..)
            .unwrap_or_default()
    }
}

/// All that can be asked for.
pub struct Site {
    names: HashMap<Vec<u8>, Resource, BuildHasherDefault<FnvHasher>>,
    files: Vec<File>,
    /// Paths of folders, with the last slash, as in a Location field.
    folders: Vec<Vec<u8>>,
    not_found: Option<u32>,
}

impl Site {
    /// The site of the boot archive.
    pub fn load() -> Site {
        let time = BootBytes::open("site.time");
        let modified = time.and_then(|time| {
            let text = core::str::from_utf8(time.as_slice()).ok()?;
            text.trim().parse().ok()
        });
        let names = (0..).map_while(BootBytes::name);
        let files = names.filter_map(|name| {
            let path = name.strip_prefix("site")?;
            (path.starts_with('/') && !path.ends_with('/')).then_some((path, BootBytes::open(name)?))
        });
        Site::new(files, modified)
    }

    /// A site of these files, by their absolute paths, which last changed at `modified`.
    pub fn new<'p>(files: impl IntoIterator<Item = (&'p str, BootBytes)>, modified: Option<u64>) -> Site {
        let mut site = Site {
            names: HashMap::default(),
            files: Vec::new(),
            folders: Vec::new(),
            not_found: None,
        };
        for (path, content) in files {
            let index = site.files.len() as u32;
            site.files.push(File::new(path, content, modified));
            site.names.insert(path.into(), Resource::File(index));
            if path == "/404.html" {
                site.not_found = Some(index);
            }
            if let Some(folder) = path
                .strip_suffix("index.html")
                .filter(|folder| folder.ends_with('/'))
            {
                site.names.insert(folder.into(), Resource::File(index));
                let name = folder.trim_end_matches('/');
                if !name.is_empty() {
                    let mut location = Vec::new();
                    crate::target::encode(folder.as_bytes(), &mut location);
                    site.names
                        .insert(name.into(), Resource::Folder(site.folders.len() as u32));
                    site.folders.push(location);
                }
            }
        }
        site.names.insert(b"/metrics".into(), Resource::Metrics);
        site.names.insert(b"/healthz".into(), Resource::Health);
        site
    }

    /// What the path named in its one spelling is; see `target::normalise`.
    #[inline]
    pub fn find(&self, path: &[u8]) -> Option<Resource> {
        self.names.get(path).copied()
    }

    /// A file of [`Resource::File`].
    #[inline]
    pub fn file(&self, index: u32) -> Option<&File> {
        self.files.get(index as usize)
    }

    /// The Location of a [`Resource::Folder`].
    pub fn folder(&self, index: u32) -> &[u8] {
        self.folders.get(index as usize).map_or(b"/", Vec::as_slice)
    }

    /// The site's own page for what isn't there.
    pub fn not_found(&self) -> Option<&File> {
        self.file(self.not_found?)
    }

    /// Files in it.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file in it.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// See the module's description.
fn etag(content: &[u8], modified: Option<u64>) -> String {
    let mut hash = FnvHasher::default();
    hash.write_u64(content.len() as u64);
    if content.len() <= WHOLE_BYTES {
        write(&mut hash, content);
    } else {
        let Some(modified) = modified else {
            return String::new();
        };
        hash.write_u64(modified);
        for part in content.chunks(WHOLE_BYTES) {
            write(&mut hash, part.get(..SAMPLE_BYTES).unwrap_or(part));
        }
        write(
            &mut hash,
            content.get(content.len() - SAMPLE_BYTES..).unwrap_or_default(),
        );
    }
    format!("\"{:016x}\"", hash.finish())
}

/// Hashes eight bytes at a step: FNV's multiplication is an eighth of the work, and this is no hash table.
fn write(hash: &mut FnvHasher, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = 0xcbf2_9ce4_8422_2325u64;
    for word in words {
        sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 32;
    }
    hash.write_u64(sum);
    hash.write(rest);
}

/// The media type by the name's ending.
fn content_type(path: &str) -> &'static str {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is = |candidates: &[&str]| candidates.iter().any(|name| extension.eq_ignore_ascii_case(name));
    if is(&["html", "htm"]) {
        "text/html; charset=utf-8"
    } else if is(&["txt", "md", "log"]) {
        "text/plain; charset=utf-8"
    } else if is(&["css"]) {
        "text/css; charset=utf-8"
    } else if is(&["js", "mjs"]) {
        "text/javascript; charset=utf-8"
    } else if is(&["csv"]) {
        "text/csv; charset=utf-8"
    } else if is(&["json", "map"]) {
        "application/json"
    } else if is(&["xml"]) {
        "application/xml"
    } else if is(&["svg"]) {
        "image/svg+xml"
    } else if is(&["png"]) {
        "image/png"
    } else if is(&["jpg", "jpeg"]) {
        "image/jpeg"
    } else if is(&["gif"]) {
        "image/gif"
    } else if is(&["webp"]) {
        "image/webp"
    } else if is(&["avif"]) {
        "image/avif"
    } else if is(&["ico"]) {
        "image/vnd.microsoft.icon"
    } else if is(&["woff"]) {
        "font/woff"
    } else if is(&["woff2"]) {
        "font/woff2"
    } else if is(&["pdf"]) {
        "application/pdf"
    } else if is(&["wasm"]) {
        "application/wasm"
    } else if is(&["zip"]) {
        "application/zip"
    } else if is(&["gz", "tgz"]) {
        "application/gzip"
    } else if is(&["mp4"]) {
        "video/mp4"
    } else if is(&["webm"]) {
        "video/webm"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::boot_file;

    #[test]
    fn folders_and_files_are_found_by_their_paths() {
        let bytes = boot_file(b"x");
        let site = Site::new(
            [
                ("/index.html", bytes),
                ("/a b/index.html", bytes),
                ("/a b/c.txt", bytes),
                ("/notindex.html", bytes),
            ],
            None,
        );
        assert_eq!(site.find(b"/"), Some(Resource::File(0)));
        assert_eq!(site.find(b"/index.html"), Some(Resource::File(0)));
        assert_eq!(site.find(b"/a b/"), Some(Resource::File(1)));
        assert_eq!(site.find(b"/a b"), Some(Resource::Folder(0)));
        assert_eq!(site.folder(0), b"/a%20b/");
        assert_eq!(site.find(b"/a b/c.txt"), Some(Resource::File(2)));
        assert_eq!(site.find(b"/not"), None);
        assert_eq!(site.find(b""), None);
        assert_eq!(site.find(b"/metrics"), Some(Resource::Metrics));
    }

    #[test]
    fn a_file_describes_itself() {
        let site = Site::new([("/a.HTML", boot_file(b"hello"))], Some(784_111_777));
        let file = site.file(0).unwrap();
        let fields = format!(
            "Content-Length: 5\r\nContent-Type: text/html; charset=utf-8\r\nAccept-Ranges: bytes\r\nETag: {}\r\n\
             Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            file.etag
        );
        assert_eq!(file.fields(), fields.as_bytes());
        assert!(file.fields_of_part().starts_with(b"Content-Type"));
        assert!(file.validators().starts_with(b"ETag"));
    }

    #[test]
    fn another_content_has_another_etag() {
        let tag = |bytes: &[u8]| etag(bytes, None);
        assert_ne!(tag(b"12345678a"), tag(b"12345678b"));
        assert_ne!(tag(b"a2345678"), tag(b"b2345678"));
        assert_ne!(tag(b"\0"), tag(b"\0\0"));
        assert_eq!(tag(b"a"), tag(b"a"));
    }

    /// Samples can't tell every change: without the time of the site there must be no validator at all.
    #[test]
    fn a_large_file_has_an_etag_only_with_a_time() {
        let large = vec![0; WHOLE_BYTES + 1];
        assert_eq!(etag(&large, None), "");
        assert_ne!(etag(&large, Some(1)), etag(&large, Some(2)));
    }
}
