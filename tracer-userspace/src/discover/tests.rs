//! Tables of processes.

use super::*;

#[test]
fn this_process_is_known_and_not_selected() {
    let mut processes = Processes::new(Selection::default(), Host::read());
    let own = processes.service(std::process::id());
    assert_eq!(
        (own.tgid, own.language, own.selected),
        (std::process::id(), Language::Rust, false)
    );
    assert!(
        Arc::ptr_eq(&own, &processes.service(std::process::id())),
        "the second call is a look-up"
    );
    processes.forget(std::process::id());
    assert!(!Arc::ptr_eq(&own, &processes.service(std::process::id())));
}
