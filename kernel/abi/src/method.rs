//! Methods of interfaces as the kernel sees them from a crossing: names for reports, and how long a call may take.

/// How long a call of a method may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As long as the manifest says for methods that say nothing themselves.
    Default,
    /// This many milliseconds.
    Ms(u32),
    /// As long as it likes: it waits for something, and says until when in its arguments or gives up when it is cancelled.
    Never,
}

/// A method of an interface. Proxies name it in the continuation of each call; it is in the kernel's image.
#[derive(Debug)]
pub struct Method {
    /// The interface's name.
    pub interface: &'static str,
    /// The method's name.
    pub name: &'static str,
    /// How long a call may take, unless the manifest says otherwise for its provider.
    pub deadline: Deadline,
}
