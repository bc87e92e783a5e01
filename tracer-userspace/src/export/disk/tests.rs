//! What is put in comes out, also of another run's folder; damage is told and costs one request.

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-disk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, max_bytes: u64) -> Disk {
        Disk::open(&self.0, "otlp", max_bytes).unwrap()
    }

    /// The only file of a request.
    fn file(&self) -> PathBuf {
        let files = fs::read_dir(self.0.join("otlp")).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        files
            .find(|path| path.extension().is_some_and(|end| end == "request"))
            .unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn body(text: &str) -> Body {
    Bytes::copy_from_slice(text.as_bytes()).into()
}

fn text(disk: &Disk) -> String {
    let stored = disk.oldest().unwrap();
    String::from_utf8(disk.read(stored).unwrap().joined().to_vec()).unwrap()
}

#[test]
fn requests_come_back_in_order_whoever_opens_the_folder() {
    let folder = Folder::new("order");
    let disk = folder.open(1 << 20);
    for (n, text) in ["one", "two", "", "four"].into_iter().enumerate() {
        assert!(disk.put(&body(text), n + 1).unwrap());
    }
    assert_eq!((text(&disk), disk.spans()), ("one".into(), 10));
    disk.remove(disk.oldest().unwrap());
    drop(disk);
    let again = folder.open(1 << 20);
    assert_eq!((again.spans(), again.level().0), (9, 3 * BLOCK));
    assert!(again.put(&body("five"), 5).unwrap());
    for expected in ["two", "", "four", "five"] {
        assert_eq!(text(&again), expected);
        again.remove(again.oldest().unwrap());
    }
    assert_eq!((again.is_empty(), again.spans(), again.level().0), (true, 0, 0));
}

#[test]
fn the_bound_holds_and_room_comes_back() {
    let folder = Folder::new("bound");
    let disk = folder.open(2 * BLOCK);
    assert!(disk.put(&body("one"), 1).unwrap());
    assert!(disk.put(&body("two"), 1).unwrap());
    assert!(!disk.put(&body("three"), 1).unwrap());
    assert_eq!(disk.level(), (2 * BLOCK, 2 * BLOCK));
    disk.remove(disk.oldest().unwrap());
    assert!(disk.put(&body("three"), 1).unwrap());
    assert_eq!(text(&disk), "two");
}

#[test]
fn a_folder_belongs_to_one_daemon() {
    let folder = Folder::new("lock");
    let disk = folder.open(1 << 20);
    let error = Disk::open(&folder.0, "otlp", 1 << 20).map(drop).unwrap_err();
    assert!(
        format!("{error:#}").contains("in use by another tracer"),
        "{error:#}"
    );
    drop(disk);
    folder.open(1 << 20);
}

#[test]
fn every_damage_is_told_and_nothing_panics() {
    let folder = Folder::new("damage");
    let disk = folder.open(1 << 20);
    disk.put(
        &body("a request with enough text to be compressed, compressed, compressed"),
        7,
    )
    .unwrap();
    let (stored, file) = (disk.oldest().unwrap(), folder.file());
    let whole = fs::read(&file).unwrap();
    let check = |bytes: &[u8], what: String| {
        fs::write(&file, bytes).unwrap();
        let error = disk.read(stored).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
    };
    for end in 0..whole.len() {
        check(&whole[..end], format!("cut off at {end}"));
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        check(&bytes, format!("byte {at}"));
    }
    fs::write(&file, &whole).unwrap();
    assert!(disk.read(stored).is_ok());
    // A checksum that fits protects from accidents, not from a length that somebody made up.
    let mut bytes = whole;
    bytes[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    let sum = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    check(&bytes, "a length beyond all".into());
}

#[test]
fn what_was_half_written_goes_away_and_strange_files_stay() {
    let folder = Folder::new("strange");
    drop(folder.open(1 << 20));
    let inside = folder.0.join("otlp");
    for name in ["000000000003.part", "notes.txt", "x-1.request", "1-x.request"] {
        fs::write(inside.join(name), "?").unwrap();
    }
    let disk = folder.open(1 << 20);
    assert!(disk.is_empty());
    assert!(!inside.join("000000000003.part").exists() && inside.join("notes.txt").exists());
}
