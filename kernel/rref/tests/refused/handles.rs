//! Handles to objects and interfaces that can't be: of what isn't on the shared heap, of what isn't an interface, and to give on.

#[rref::interface]
pub trait Counter {
    fn count(&self) -> Result<u64, rref::RpcError>;
}

fn exists<T>() {}
fn crosses<T: rref::Exchange>() {}

fn main() {
    exists::<rref::RRef<&'static u8>>(); //~ E0277 the trait bound `&'static u8: Share` is not satisfied
    exists::<rref::RRef<String>>(); //~ E0277 the trait bound `String: Share` is not satisfied
    exists::<rref::RRef<[fn(); 2]>>(); //~ E0277 the trait bound `fn(): Share` is not satisfied
    exists::<rref::RRef<rref::RRef<u8>>>(); //~ E0277 the trait bound `RRef<u8>: Share` is not satisfied
    exists::<rref::RRef<std::sync::atomic::AtomicU64>>(); //~ E0277 the trait bound `AtomicU64: Share` is not satisfied
    exists::<rref::Batch<Box<u8>>>(); //~ E0277 the trait bound `Box<u8>: Share` is not satisfied
    exists::<rref::Batch<rref::Batch<u8>>>(); //~ E0277 the trait bound `Batch<u8>: Share` is not satisfied
    exists::<rref::Handle<dyn Fn() + Send + Sync>>(); //~ E0277 the trait bound `dyn Fn() + Send + Sync: Interface` is not satisfied
    exists::<rref::Handle<u8>>(); //~ E0277 the trait bound `u8: Interface` is not satisfied
    // Who may hold a handle is in the manifest; nobody passes one on.
    crosses::<rref::Handle<dyn Counter>>(); //~ E0277 the trait bound `Handle<dyn Counter>: Exchange` is not satisfied
    crosses::<&'static dyn Counter>(); //~ E0277 the trait bound `&'static (dyn Counter + 'static): Exchange` is not satisfied
    crosses::<Box<dyn Counter>>(); //~ E0277 the trait bound `Box<dyn Counter>: Exchange` is not satisfied
}
