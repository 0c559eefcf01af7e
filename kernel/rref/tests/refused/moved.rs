//! What was given away is gone, and what is lent can't be kept.

use rref::{RRef, RpcError};

#[rref::interface]
pub trait Store {
    fn keep(&self, object: RRef<u64>) -> Result<(), RpcError>;
    fn look(&self, object: &RRef<u64>) -> Result<u64, RpcError>;
}

struct Thief(std::sync::Mutex<Vec<RRef<u64>>>, std::sync::Mutex<Vec<&'static RRef<u64>>>);

impl Store for Thief {
    fn keep(&self, object: RRef<u64>) -> Result<(), RpcError> {
        self.0.lock().unwrap().push(object);
        Ok(())
    }
    fn look(&self, object: &RRef<u64>) -> Result<u64, RpcError> {
        self.1.lock().unwrap().push(object); //~ E0521 borrowed data escapes outside of method
        Ok(1)
    }
}

fn twice(store: &dyn Store, object: RRef<u64>) {
    store.keep(object).ok();
    store.keep(object).ok(); //~ E0382 use of moved value: `object`
}

fn after(store: &dyn Store, object: RRef<u64>) -> u64 {
    store.keep(object).ok();
    *object //~ E0382 borrow of moved value: `object`
}

fn out(object: &RRef<u64>) -> RRef<u64> {
    *object //~ E0507 cannot move out of `*object` which is behind a shared reference
}

fn change(object: &RRef<u64>) {
    **object = 5; //~ E0596 cannot borrow `*object` as mutable, as it is behind a `&` reference
}

fn main() {}
