//! What the compiler refuses to let cross: each block below must fail to compile with exactly the error named.
//!
//! Types that could carry a pointer into a domain's image or heap, or a way to change what another domain owns, don't implement
//! [`Exchange`](crate::Exchange) (E0277: the bound isn't satisfied):
//!
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<&'static str>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<*const u8>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<fn()>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<Box<u8>>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<Vec<u8>>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<String>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<std::sync::Arc<u8>>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<std::cell::Cell<u8>>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<std::sync::atomic::AtomicU64>();
//! ```
//! ```compile_fail,E0277
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<Box<dyn Fn()>>();
//! ```
//!
//! A struct or enum is exchangeable only if every field is, whatever it is called:
//!
//! ```compile_fail,E0277
//! type Harmless = &'static [u8];
//! #[derive(rref::Exchange)]
//! struct Message {
//!     text: Harmless,
//! }
//! ```
//! ```compile_fail,E0277
//! #[derive(rref::Exchange)]
//! enum Message {
//!     Empty,
//!     Shared(std::sync::Arc<u8>),
//! }
//! ```
//! ```compile_fail,E0277
//! #[derive(rref::Exchange)]
//! struct Message<T> {
//!     value: T,
//! }
//! fn crosses<T: rref::Exchange>() {}
//! crosses::<Message<*mut u8>>();
//! ```
//!
//! What lives on the shared heap holds no handles, so that it can be reclaimed by its size:
//!
//! ```compile_fail,E0277
//! #[derive(rref::Exchange, rref::Share)]
//! struct Node {
//!     next: rref::RRef<u64>,
//! }
//! ```
//!
//! What is left to an heir is data of which any bytes are a value (E0277), laid out and without padding:
//!
//! ```compile_fail,E0277
//! #[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
//! #[repr(C)]
//! struct Entry {
//!     is_used: bool,
//! }
//! ```
//! ```compile_fail
//! #[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
//! #[repr(u8)]
//! enum State {
//!     Open = 1,
//! }
//! ```
//! ```compile_fail,E0080
//! #[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
//! #[repr(C)]
//! struct Padded {
//!     word: u64,
//!     byte: u8,
//! }
//! ```
//! ```compile_fail
//! // The order of fields is the compiler's.
//! #[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
//! struct Unordered {
//!     word: u64,
//! }
//! ```
//! ```compile_fail,E0277
//! let objects = rref::SharedSlice::<rref::RRef<u64>>::zeroed(4);
//! ```
//!
//! The interface macro puts the bounds on arguments and results (E0277), and refuses what it can't check:
//!
//! ```compile_fail,E0277
//! #[rref::interface]
//! pub trait Logger {
//!     fn log(&self, line: String) -> Result<(), rref::RpcError>;
//! }
//! ```
//! ```compile_fail,E0277
//! #[rref::interface]
//! pub trait Names {
//!     fn name(&self) -> Result<&'static str, rref::RpcError>;
//! }
//! ```
//! ```compile_fail,E0277
//! // The answer must be able to say that the callee is dead.
//! #[rref::interface]
//! pub trait Counter {
//!     fn count(&self) -> u64;
//! }
//! ```
//! ```compile_fail,E0308
//! // Lent arguments are on the shared heap.
//! #[rref::interface]
//! pub trait Counter {
//!     fn count(&self, words: &Vec<u8>) -> Result<u64, rref::RpcError>;
//! }
//! ```
//! ```compile_fail
//! #[rref::interface]
//! pub trait Counter {
//!     fn count(&mut self) -> Result<u64, rref::RpcError>;
//! }
//! ```
//!
//! The same shapes with exchangeable types compile:
//!
//! ```
//! #[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
//! #[repr(C, align(16))]
//! struct Entry {
//!     word: u64,
//!     halves: [u32; 2],
//! }
//! #[derive(rref::Exchange)]
//! struct Message<T> {
//!     value: T,
//!     object: rref::RRef<u64>,
//!     packets: Option<rref::PacketBatch>,
//! }
//! #[rref::interface]
//! pub trait Counter {
//!     fn count(&self, moved: Message<u8>, lent: &rref::RRef<u64>) -> Result<Message<u32>, rref::RpcError>;
//! }
//! ```
