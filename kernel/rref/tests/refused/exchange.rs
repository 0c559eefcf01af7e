//! Types that could carry a pointer into a domain's image or heap, or a way to change what another domain owns.

#[derive(rref::Exchange)]
struct Generic<T> {
    value: T,
}

fn crosses<T: rref::Exchange>() {}

fn main() {
    crosses::<&'static u8>(); //~ E0277 the trait bound `&'static u8: Exchange` is not satisfied
    crosses::<&'static str>(); //~ E0277 the trait bound `&'static str: Exchange` is not satisfied
    crosses::<&'static [u8]>(); //~ E0277 the trait bound `&'static [u8]: Exchange` is not satisfied
    crosses::<&'static mut u8>(); //~ E0277 the trait bound `&'static mut u8: Exchange` is not satisfied
    crosses::<*const u8>(); //~ E0277 the trait bound `*const u8: Exchange` is not satisfied
    crosses::<*mut u8>(); //~ E0277 the trait bound `*mut u8: Exchange` is not satisfied
    crosses::<core::ptr::NonNull<u8>>(); //~ E0277 the trait bound `NonNull<u8>: Exchange` is not satisfied
    crosses::<fn()>(); //~ E0277 the trait bound `fn(): Exchange` is not satisfied
    crosses::<fn(u8) -> u8>(); //~ E0277 the trait bound `fn(u8) -> u8: Exchange` is not satisfied
    crosses::<extern "C" fn()>(); //~ E0277 the trait bound `extern "C" fn(): Exchange` is not satisfied
    crosses::<unsafe fn()>(); //~ E0277 the trait bound `unsafe fn(): Exchange` is not satisfied
    crosses::<Box<u8>>(); //~ E0277 the trait bound `Box<u8>: Exchange` is not satisfied
    crosses::<Box<dyn Fn()>>(); //~ E0277 the trait bound `Box<dyn Fn()>: Exchange` is not satisfied
    crosses::<Box<dyn std::any::Any>>(); //~ E0277 the trait bound `Box<(dyn Any + 'static)>: Exchange` is not satisfied
    crosses::<Box<[u8]>>(); //~ E0277 the trait bound `Box<[u8]>: Exchange` is not satisfied
    crosses::<Vec<u8>>(); //~ E0277 the trait bound `Vec<u8>: Exchange` is not satisfied
    crosses::<String>(); //~ E0277 the trait bound `String: Exchange` is not satisfied
    crosses::<std::collections::HashMap<u8, u8>>(); //~ E0277 the trait bound `HashMap<u8, u8>: Exchange` is not satisfied
    crosses::<std::collections::BTreeMap<u8, u8>>(); //~ E0277 the trait bound `BTreeMap<u8, u8>: Exchange` is not satisfied
    crosses::<std::rc::Rc<u8>>(); //~ E0277 the trait bound `Rc<u8>: Exchange` is not satisfied
    crosses::<std::sync::Arc<u8>>(); //~ E0277 the trait bound `Arc<u8>: Exchange` is not satisfied
    crosses::<std::sync::Weak<u8>>(); //~ E0277 the trait bound `std::sync::Weak<u8>: Exchange` is not satisfied
    crosses::<std::borrow::Cow<'static, str>>(); //~ E0277 the trait bound `Cow<'static, str>: Exchange` is not satisfied
    crosses::<std::cell::Cell<u8>>(); //~ E0277 the trait bound `Cell<u8>: Exchange` is not satisfied
    crosses::<std::cell::RefCell<u8>>(); //~ E0277 the trait bound `RefCell<u8>: Exchange` is not satisfied
    crosses::<std::cell::UnsafeCell<u8>>(); //~ E0277 the trait bound `UnsafeCell<u8>: Exchange` is not satisfied
    crosses::<std::cell::OnceCell<u8>>(); //~ E0277 the trait bound `OnceCell<u8>: Exchange` is not satisfied
    crosses::<std::sync::atomic::AtomicBool>(); //~ E0277 the trait bound `AtomicBool: Exchange` is not satisfied
    crosses::<std::sync::atomic::AtomicU64>(); //~ E0277 the trait bound `AtomicU64: Exchange` is not satisfied
    crosses::<std::sync::atomic::AtomicPtr<u8>>(); //~ E0277 the trait bound `AtomicPtr<u8>: Exchange` is not satisfied
    crosses::<std::sync::Mutex<u8>>(); //~ E0277 the trait bound `std::sync::Mutex<u8>: Exchange` is not satisfied
    crosses::<std::sync::RwLock<u8>>(); //~ E0277 the trait bound `std::sync::RwLock<u8>: Exchange` is not satisfied
    crosses::<std::sync::OnceLock<u8>>(); //~ E0277 the trait bound `OnceLock<u8>: Exchange` is not satisfied
    crosses::<std::sync::mpsc::Sender<u8>>(); //~ E0277 the trait bound `std::sync::mpsc::Sender<u8>: Exchange` is not satisfied
    crosses::<std::thread::JoinHandle<()>>(); //~ E0277 the trait bound `JoinHandle<()>: Exchange` is not satisfied
    crosses::<std::any::TypeId>(); //~ E0277 the trait bound `TypeId: Exchange` is not satisfied
    crosses::<std::mem::ManuallyDrop<u8>>(); //~ E0277 the trait bound `ManuallyDrop<u8>: Exchange` is not satisfied
    crosses::<std::mem::MaybeUninit<u8>>(); //~ E0277 the trait bound `MaybeUninit<u8>: Exchange` is not satisfied
    crosses::<std::pin::Pin<Box<u8>>>(); //~ E0277 the trait bound `Pin<Box<u8>>: Exchange` is not satisfied
    crosses::<std::task::Waker>(); //~ E0277 the trait bound `Waker: Exchange` is not satisfied
    crosses::<std::slice::Iter<'static, u8>>(); //~ E0277 the trait bound `std::slice::Iter<'static, u8>: Exchange` is not satisfied
    crosses::<std::panic::Location<'static>>(); //~ E0277 the trait bound `Location<'static>: Exchange` is not satisfied
    crosses::<std::marker::PhantomData<&'static u8>>(); //~ E0277 the trait bound `PhantomData<&'static u8>: Exchange` is not satisfied
    crosses::<std::marker::PhantomData<fn()>>(); //~ E0277 the trait bound `PhantomData<fn()>: Exchange` is not satisfied
    crosses::<[&'static u8; 2]>(); //~ E0277 the trait bound `&'static u8: Exchange` is not satisfied
    crosses::<Option<&'static u8>>(); //~ E0277 the trait bound `&'static u8: Exchange` is not satisfied
    crosses::<Option<Box<u8>>>(); //~ E0277 the trait bound `Box<u8>: Exchange` is not satisfied
    crosses::<Result<u8, String>>(); //~ E0277 the trait bound `String: Exchange` is not satisfied
    crosses::<Result<Vec<u8>, u8>>(); //~ E0277 the trait bound `Vec<u8>: Exchange` is not satisfied
    crosses::<(u8, *const u8)>(); //~ E0277 the trait bound `*const u8: Exchange` is not satisfied
    crosses::<(u8, u8, u8, u8, u8, fn())>(); //~ E0277 the trait bound `fn(): Exchange` is not satisfied
    crosses::<[Option<(u8, String)>; 3]>(); //~ E0277 the trait bound `String: Exchange` is not satisfied
    crosses::<Generic<&'static u8>>(); //~ E0277 the trait bound `&'static u8: Exchange` is not satisfied
    crosses::<Generic<Generic<Box<u8>>>>(); //~ E0277 the trait bound `Box<u8>: Exchange` is not satisfied
}
