//! What victims ask in their start.

use alloc::sync::Arc;
use alloc::vec::Vec;
use attack::Fault;
use attack_interface::orders::{Orders, OrdersError};
use domain_rt::sync::Mutex;

/// Orders that are not given yet: index of the domain in the manifest, and its fault.
#[derive(Default)]
pub struct StartOrders(Mutex<Vec<(u16, Fault)>>);

impl StartOrders {
    /// Lets the next start of a domain raise a fault.
    pub fn set(&self, domain: u16, fault: Fault) {
        self.0.lock().push((domain, fault));
    }

    /// Takes back what was not asked for; whether there was something.
    pub fn clear(&self) -> bool {
        let mut orders = self.0.lock();
        let any = !orders.is_empty();
        orders.clear();
        any
    }

    fn take(&self, domain: u16) -> Option<Fault> {
        let mut orders = self.0.lock();
        let index = orders.iter().position(|(whose, _)| *whose == domain)?;
        Some(orders.swap_remove(index).1)
    }
}

/// The exported object.
pub struct Service(Arc<StartOrders>);

impl Service {
    /// A service of `orders`.
    pub fn new(orders: Arc<StartOrders>) -> Service {
        Service(orders)
    }
}

impl Orders for Service {
    fn at_start(&self) -> Result<Option<Fault>, OrdersError> {
        // Slot 0 is the kernel; domains follow in the manifest's order.
        let caller = rref::caller().slot().checked_sub(1);
        Ok(caller.and_then(|domain| self.0.take(domain)))
    }
}
