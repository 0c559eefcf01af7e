//! The processor's atomics for the checker: what the compiler makes of an access on x86, and no more.
//!
//! A load is a plain one whatever its order. A sequentially consistent store is an exchange, and every read-modify-write is locked: these
//! are full barriers, which the checker knows as fences. Everything else is as the checker has it, which lets a processor do more than
//! x86 does, so what holds here holds there.
//!
//! `weak` is the same without barriers, for tests that show where they are needed.

macro_rules! atomics {
    ($barrier:expr) => {
        pub use loom::sync::atomic::Ordering;

        fn barrier(order: Ordering) {
            if order == Ordering::SeqCst && $barrier {
                loom::sync::atomic::fence(Ordering::SeqCst);
            }
        }

        fn load(order: Ordering) -> Ordering {
            match order {
                Ordering::SeqCst => Ordering::Acquire,
                other => other,
            }
        }

        fn store(order: Ordering) -> Ordering {
            match order {
                Ordering::SeqCst => Ordering::Release,
                other => other,
            }
        }

        fn modify(order: Ordering) -> Ordering {
            match order {
                Ordering::SeqCst => Ordering::AcqRel,
                other => other,
            }
        }

        macro_rules! atomic {
            ($name:ident, $value:ty) => {
                #[derive(Default)]
                pub struct $name(loom::sync::atomic::$name);

                impl $name {
                    pub fn new(value: $value) -> Self {
                        Self(loom::sync::atomic::$name::new(value))
                    }

                    pub fn load(&self, order: Ordering) -> $value {
                        self.0.load(load(order))
                    }

                    pub fn store(&self, value: $value, order: Ordering) {
                        if order == Ordering::SeqCst && $barrier {
                            self.swap(value, order);
                        } else {
                            self.0.store(value, store(order));
                        }
                    }

                    pub fn swap(&self, value: $value, order: Ordering) -> $value {
                        barrier(order);
                        let before = self.0.swap(value, modify(order));
                        barrier(order);
                        before
                    }

                    pub fn compare_exchange(
                        &self,
                        current: $value,
                        new: $value,
                        success: Ordering,
                        failure: Ordering,
                    ) -> Result<$value, $value> {
                        barrier(success);
                        let before = self
                            .0
                            .compare_exchange(current, new, modify(success), load(failure));
                        barrier(success);
                        before
                    }
                }
            };
        }

        macro_rules! counter {
            ($name:ident, $value:ty) => {
                impl $name {
                    pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                        barrier(order);
                        let before = self.0.fetch_add(value, modify(order));
                        barrier(order);
                        before
                    }
                }
            };
        }

        atomic!(AtomicBool, bool);
        atomic!(AtomicU32, u32);
        atomic!(AtomicU64, u64);
        counter!(AtomicU32, u32);
        counter!(AtomicU64, u64);
    };
}

atomics!(true);

pub mod weak {
    //! A processor on which no access is a barrier.
    atomics!(false);
}
