//! From a service that ends to the next one on the same state. The one that ends lets go of its socket first,
//! so that the next one may begin while files are still locked.

use std::thread;
use std::time::{Duration, Instant};

/// How long the rest of an end may take.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Opens what an earlier process may still hold, and waits while it does: ten seconds at most, then the last
/// error is told. Blocks.
pub fn when_free<T, E>(
    mut open: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(error) if is_held(&error) && Instant::now() < until => thread::sleep(PAUSE),
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_waited_for_and_what_is_broken_is_not() {
        let mut tries = 0;
        let mut third = || {
            tries += 1;
            if tries < 3 { Err("held") } else { Ok(tries) }
        };
        let is_held = |error: &&str| *error == "held";
        assert_eq!(when_free(&mut third, is_held), Ok(3));
        let broken = || Err::<(), _>("broken");
        assert_eq!(when_free(broken, is_held), Err("broken"));
    }
}
