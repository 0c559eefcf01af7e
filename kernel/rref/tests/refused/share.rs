//! Types that on the shared heap could carry a pointer into a domain's image or heap, or a way to change what another domain owns.

fn is_shared<T: rref::Share>() {}

fn main() {
    is_shared::<&'static u8>(); //~ E0277 the trait bound `&'static u8: Share` is not satisfied
    is_shared::<&'static str>(); //~ E0277 the trait bound `&'static str: Share` is not satisfied
    is_shared::<&'static [u8]>(); //~ E0277 the trait bound `&'static [u8]: Share` is not satisfied
    is_shared::<&'static mut u8>(); //~ E0277 the trait bound `&'static mut u8: Share` is not satisfied
    is_shared::<*const u8>(); //~ E0277 the trait bound `*const u8: Share` is not satisfied
    is_shared::<*mut u8>(); //~ E0277 the trait bound `*mut u8: Share` is not satisfied
    is_shared::<core::ptr::NonNull<u8>>(); //~ E0277 the trait bound `NonNull<u8>: Share` is not satisfied
    is_shared::<fn()>(); //~ E0277 the trait bound `fn(): Share` is not satisfied
    is_shared::<fn(u8) -> u8>(); //~ E0277 the trait bound `fn(u8) -> u8: Share` is not satisfied
    is_shared::<extern "C" fn()>(); //~ E0277 the trait bound `extern "C" fn(): Share` is not satisfied
    is_shared::<unsafe fn()>(); //~ E0277 the trait bound `unsafe fn(): Share` is not satisfied
    is_shared::<Box<u8>>(); //~ E0277 the trait bound `Box<u8>: Share` is not satisfied
    is_shared::<Box<dyn Fn()>>(); //~ E0277 the trait bound `Box<dyn Fn()>: Share` is not satisfied
    is_shared::<Box<dyn std::any::Any>>(); //~ E0277 the trait bound `Box<(dyn Any + 'static)>: Share` is not satisfied
    is_shared::<Box<[u8]>>(); //~ E0277 the trait bound `Box<[u8]>: Share` is not satisfied
    is_shared::<Vec<u8>>(); //~ E0277 the trait bound `Vec<u8>: Share` is not satisfied
    is_shared::<String>(); //~ E0277 the trait bound `String: Share` is not satisfied
    is_shared::<std::collections::HashMap<u8, u8>>(); //~ E0277 the trait bound `HashMap<u8, u8>: Share` is not satisfied
    is_shared::<std::collections::BTreeMap<u8, u8>>(); //~ E0277 the trait bound `BTreeMap<u8, u8>: Share` is not satisfied
    is_shared::<std::rc::Rc<u8>>(); //~ E0277 the trait bound `Rc<u8>: Share` is not satisfied
    is_shared::<std::sync::Arc<u8>>(); //~ E0277 the trait bound `Arc<u8>: Share` is not satisfied
    is_shared::<std::sync::Weak<u8>>(); //~ E0277 the trait bound `std::sync::Weak<u8>: Share` is not satisfied
    is_shared::<std::borrow::Cow<'static, str>>(); //~ E0277 the trait bound `Cow<'static, str>: Share` is not satisfied
    is_shared::<std::cell::Cell<u8>>(); //~ E0277 the trait bound `Cell<u8>: Share` is not satisfied
    is_shared::<std::cell::RefCell<u8>>(); //~ E0277 the trait bound `RefCell<u8>: Share` is not satisfied
    is_shared::<std::cell::UnsafeCell<u8>>(); //~ E0277 the trait bound `UnsafeCell<u8>: Share` is not satisfied
    is_shared::<std::cell::OnceCell<u8>>(); //~ E0277 the trait bound `OnceCell<u8>: Share` is not satisfied
    is_shared::<std::sync::atomic::AtomicBool>(); //~ E0277 the trait bound `AtomicBool: Share` is not satisfied
    is_shared::<std::sync::atomic::AtomicU64>(); //~ E0277 the trait bound `AtomicU64: Share` is not satisfied
    is_shared::<std::sync::atomic::AtomicPtr<u8>>(); //~ E0277 the trait bound `AtomicPtr<u8>: Share` is not satisfied
    is_shared::<std::sync::Mutex<u8>>(); //~ E0277 the trait bound `std::sync::Mutex<u8>: Share` is not satisfied
    is_shared::<std::sync::RwLock<u8>>(); //~ E0277 the trait bound `std::sync::RwLock<u8>: Share` is not satisfied
    is_shared::<std::sync::OnceLock<u8>>(); //~ E0277 the trait bound `OnceLock<u8>: Share` is not satisfied
    is_shared::<std::sync::mpsc::Sender<u8>>(); //~ E0277 the trait bound `std::sync::mpsc::Sender<u8>: Share` is not satisfied
    is_shared::<std::thread::JoinHandle<()>>(); //~ E0277 the trait bound `JoinHandle<()>: Share` is not satisfied
    is_shared::<std::any::TypeId>(); //~ E0277 the trait bound `TypeId: Share` is not satisfied
    is_shared::<std::mem::ManuallyDrop<u8>>(); //~ E0277 the trait bound `ManuallyDrop<u8>: Share` is not satisfied
    is_shared::<std::mem::MaybeUninit<u8>>(); //~ E0277 the trait bound `MaybeUninit<u8>: Share` is not satisfied
    is_shared::<std::pin::Pin<Box<u8>>>(); //~ E0277 the trait bound `Pin<Box<u8>>: Share` is not satisfied
    is_shared::<std::task::Waker>(); //~ E0277 the trait bound `Waker: Share` is not satisfied
    is_shared::<std::slice::Iter<'static, u8>>(); //~ E0277 the trait bound `std::slice::Iter<'static, u8>: Share` is not satisfied
    is_shared::<std::panic::Location<'static>>(); //~ E0277 the trait bound `Location<'static>: Share` is not satisfied
    is_shared::<std::marker::PhantomData<&'static u8>>(); //~ E0277 the trait bound `PhantomData<&'static u8>: Share` is not satisfied
    is_shared::<std::marker::PhantomData<fn()>>(); //~ E0277 the trait bound `PhantomData<fn()>: Share` is not satisfied
    is_shared::<[&'static u8; 2]>(); //~ E0277 the trait bound `&'static u8: Share` is not satisfied
    is_shared::<Option<&'static u8>>(); //~ E0277 the trait bound `&'static u8: Share` is not satisfied
    is_shared::<Option<Box<u8>>>(); //~ E0277 the trait bound `Box<u8>: Share` is not satisfied
    is_shared::<Result<u8, String>>(); //~ E0277 the trait bound `Result<u8, String>: Share` is not satisfied
    is_shared::<Result<Vec<u8>, u8>>(); //~ E0277 the trait bound `Result<Vec<u8>, u8>: Share` is not satisfied
    is_shared::<(u8, *const u8)>(); //~ E0277 the trait bound `*const u8: Share` is not satisfied
    is_shared::<(u8, u8, u8, u8, u8, fn())>(); //~ E0277 the trait bound `fn(): Share` is not satisfied
    is_shared::<[Option<(u8, String)>; 3]>(); //~ E0277 the trait bound `String: Share` is not satisfied
    is_shared::<rref::RRef<u64>>(); //~ E0277 the trait bound `RRef<u64>: Share` is not satisfied
    is_shared::<Option<rref::RRef<u64>>>(); //~ E0277 the trait bound `RRef<u64>: Share` is not satisfied
    is_shared::<rref::Batch<u64>>(); //~ E0277 the trait bound `Batch<u64>: Share` is not satisfied
    is_shared::<Option<rref::Batch<u64>>>(); //~ E0277 the trait bound `Batch<u64>: Share` is not satisfied
    is_shared::<rref::PacketBatch>(); //~ E0277 the trait bound `Batch<Packet>: Share` is not satisfied
    is_shared::<Option<rref::PacketBatch>>(); //~ E0277 the trait bound `Batch<Packet>: Share` is not satisfied
}
