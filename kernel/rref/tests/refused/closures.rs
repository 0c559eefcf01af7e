//! Functions and closures, with and without something in them.

fn crosses<T: rref::Exchange>(_: T) {}
fn nothing() {}

fn main() {
    let number = 5u8;
    crosses(|| ()); //~ E0277 : Exchange` is not satisfied
    crosses(move || number); //~ E0277 : Exchange` is not satisfied
    crosses(nothing); //~ E0277 the trait bound `fn() {nothing}: Exchange` is not satisfied
    crosses(std::iter::once(number)); //~ E0277 the trait bound `std::iter::Once<u8>: Exchange` is not satisfied
    crosses("text"); //~ E0277 the trait bound `&str: Exchange` is not satisfied
    crosses(&number); //~ E0277 the trait bound `&u8: Exchange` is not satisfied
    crosses(std::future::ready(number)); //~ E0277 the trait bound `std::future::Ready<u8>: Exchange` is not satisfied
}
