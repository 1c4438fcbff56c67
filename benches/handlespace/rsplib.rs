//! rsplib's handlespace, where its library is installed (Debian: librsplib3): what `librsphsmgt.so.3`
//! exports, called by name. Its own structures stay opaque; those that it fills lie in rooms larger
//! than any of its versions needs.

use super::{Make as Values, Measured, element, measure, times};
use libc::{c_char, c_int, c_uint, c_void};
use rserpool::wire::{Policy, PoolElement, PoolHandle};
use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::time::Instant;
use std::{mem, ptr};

const LIBRARY: &CStr = c"librsphsmgt.so.3";
/// Which of its handlespaces: the one its registrar uses, on red-black trees.
const VARIANT: &str = "_SimpleRedBlackTree";

/// Memory for a structure that only the library knows.
#[repr(C, align(64))]
struct Room<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Room<BYTES> {
    fn new() -> Box<Self> {
        Box::new(Room([0; BYTES]))
    }

    fn as_ptr(&self) -> *const c_void {
        self.0.as_ptr().cast()
    }

    fn as_mut_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

/// A policy and its values, by type number.
#[repr(C)]
#[derive(Default)]
struct Settings {
    policy: c_uint,
    /// Or priority.
    weight: c_uint,
    load: c_uint,
    degradation: c_uint,
    load_dpf: c_uint,
    weight_dpf: c_uint,
    distance: c_uint,
}

type Callback = Option<unsafe extern "C" fn()>;
type MakeHandle = unsafe extern "C" fn(*mut c_void, *const u8, usize);
/// Protocol, port, flags, addresses, how many, at most how many.
type MakeTransport = unsafe extern "C" fn(*mut c_void, c_int, u16, u16, *const c_void, usize, usize);
type Make = unsafe extern "C" fn(*mut c_void, u32, Callback, Callback, *mut c_void);
type Delete = unsafe extern "C" fn(*mut c_void);
type Count = unsafe extern "C" fn(*const c_void) -> usize;
/// Handle, home registrar, identifier, life, policy, transport, the registrar's transport, connection
/// (socket and association), now; out: the element.
type Register = unsafe extern "C" fn(
    *mut c_void,
    *const c_void,
    u32,
    u32,
    c_uint,
    *const Settings,
    *const c_void,
    *const c_void,
    c_int,
    c_int,
    u64,
    *mut *mut c_void,
) -> c_uint;
/// Handle; out: elements, how many; at most how many, how many count as used (0: as the policy has it).
type Resolve =
    unsafe extern "C" fn(*mut c_void, *const c_void, *mut *mut c_void, *mut usize, usize, usize) -> c_uint;

/// The library, loaded until the program ends.
pub struct Library {
    make_handle: MakeHandle,
    make_transport: MakeTransport,
    make: Make,
    delete: Delete,
    count: Count,
    register: Register,
    resolve: Resolve,
}

impl Library {
    /// Says why it cannot be loaded.
    pub fn load() -> Result<Library, String> {
        let management = |name: &str| format!("poolHandlespaceManagement{name}{VARIANT}");
        // SAFETY: the library's initialisers do nothing to us; a name's type is that of its function.
        unsafe {
            let library = libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            if library.is_null() {
                return Err(CStr::from_ptr(libc::dlerror()).to_string_lossy().into_owned());
            }
            Ok(Library {
                make_handle: mem::transmute::<*mut c_void, MakeHandle>(symbol(library, "poolHandleNew")?),
                make_transport: mem::transmute::<*mut c_void, MakeTransport>(symbol(
                    library,
                    "transportAddressBlockNew",
                )?),
                make: mem::transmute::<*mut c_void, Make>(symbol(library, &management("New"))?),
                delete: mem::transmute::<*mut c_void, Delete>(symbol(library, &management("Delete"))?),
                count: mem::transmute::<*mut c_void, Count>(symbol(library, &management("GetPoolElements"))?),
                register: mem::transmute::<*mut c_void, Register>(symbol(
                    library,
                    &management("RegisterPoolElement"),
                )?),
                resolve: mem::transmute::<*mut c_void, Resolve>(symbol(
                    library,
                    &management("HandleResolution"),
                )?),
            })
        }
    }

    /// The same as is measured of ours.
    pub fn measure(
        &self,
        pool: &PoolHandle,
        count: usize,
        policy: Values,
        repeats: usize,
        batches: usize,
    ) -> Measured {
        let mut register = Vec::new();
        let mut filled = Space::filled(self, pool, count, policy);
        register.push(filled.1);
        for _ in 1..repeats {
            drop(filled);
            filled = Space::filled(self, pool, count, policy);
            register.push(filled.1);
        }
        let (mut space, _, bytes) = filled;
        let mut resolve = |items| measure(batches, 1000, || space.resolve(items));
        resolve(1);
        let (one, three) = (resolve(1), resolve(3));
        Measured { register: times(register), one, three, again: None, bytes }
    }
}

/// # Safety
/// `library` is a loaded one.
unsafe fn symbol(library: *mut c_void, name: &str) -> Result<*mut c_void, String> {
    let wanted = CString::new(name).map_err(|error| error.to_string())?;
    // SAFETY: as the caller promises; a string that ends.
    let found = unsafe { libc::dlsym(library, wanted.as_ptr().cast::<c_char>()) };
    if found.is_null() { Err(format!("it has no {name}")) } else { Ok(found) }
}

/// One of the library's handlespaces. It remembers where it lies: boxed.
struct Space<'a> {
    library: &'a Library,
    state: Box<Room<8192>>,
    pool: Box<Room<1024>>,
}

/// What a registration needs, made beforehand.
struct Prepared {
    id: u32,
    home: u32,
    life: u32,
    settings: Settings,
    transport: Box<Room<512>>,
}

impl<'a> Space<'a> {
    /// A filled one, the nanoseconds per registration, the bytes per element.
    fn filled(
        library: &'a Library,
        handle: &PoolHandle,
        count: usize,
        policy: Values,
    ) -> (Space<'a>, f64, f64) {
        let before = heap();
        let mut space = Space { library, state: Room::new(), pool: Room::new() };
        let bytes = handle.as_bytes();
        assert!(bytes.len() <= 32, "the library's handles are that long");
        // SAFETY: rooms larger than the structures; the space stays where it is until it is deleted.
        unsafe {
            (library.make_handle)(space.pool.as_mut_ptr(), bytes.as_ptr(), bytes.len());
            (library.make)(space.state.as_mut_ptr(), element(0, policy).home.0, None, None, ptr::null_mut());
        }
        let mut nanoseconds = 0;
        for first in (0..count).step_by(1000) {
            let batch: Vec<Prepared> = (first..count.min(first + 1000))
                .map(|i| Prepared::new(library, &element(i as u32, policy)))
                .collect();
            let start = Instant::now();
            for element in &batch {
                space.register(element);
            }
            nanoseconds += start.elapsed().as_nanos();
        }
        // SAFETY: a live handlespace.
        assert_eq!(unsafe { (library.count)(space.state.as_ptr()) }, count);
        let bytes = heap() - before;
        (space, nanoseconds as f64 / count as f64, bytes as f64 / count as f64)
    }

    fn register(&mut self, element: &Prepared) {
        let mut registered = ptr::null_mut();
        // SAFETY: a live handlespace; all it is given is copied. Connection -1 is none, as in ours.
        let error = unsafe {
            (self.library.register)(
                self.state.as_mut_ptr(),
                self.pool.as_ptr(),
                element.home,
                element.id,
                element.life,
                &raw const element.settings,
                element.transport.as_ptr(),
                ptr::null(),
                -1,
                0,
                0,
                &raw mut registered,
            )
        };
        assert_eq!(error, 0, "rsplib refuses a registration");
    }

    fn resolve(&mut self, items: usize) {
        let mut elements = [ptr::null_mut(); 8];
        let mut found = 0;
        // SAFETY: a live handlespace, room for `items`.
        let error = unsafe {
            (self.library.resolve)(
                self.state.as_mut_ptr(),
                self.pool.as_ptr(),
                elements.as_mut_ptr(),
                &raw mut found,
                items,
                0,
            )
        };
        assert_eq!((error, found), (0, items), "rsplib refuses a resolution");
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `filled`, deleted once.
        unsafe { (self.library.delete)(self.state.as_mut_ptr()) };
    }
}

impl Prepared {
    fn new(library: &Library, element: &PoolElement) -> Prepared {
        let [IpAddr::V4(address)] = element.transport.addresses()[..] else { panic!("one IPv4 address") };
        // An address takes some 28 bytes there, whatever its family.
        let mut from = Room::<128>([0; 128]);
        // SAFETY: larger than a `sockaddr_in`, and aligned for it.
        unsafe {
            (*from.as_mut_ptr().cast::<libc::sockaddr_in>()).sin_family = libc::AF_INET as _;
            (*from.as_mut_ptr().cast::<libc::sockaddr_in>()).sin_addr.s_addr = u32::from(address).to_be();
        }
        let mut transport = Room::new();
        const CONTROL_CHANNEL: u16 = 1;
        // SAFETY: rooms larger than the structures.
        unsafe {
            (library.make_transport)(
                transport.as_mut_ptr(),
                libc::IPPROTO_TCP,
                element.transport.port(),
                CONTROL_CHANNEL,
                from.as_ptr(),
                1,
                1,
            );
        }
        Prepared {
            id: element.id.0,
            home: element.home.0,
            life: element.life,
            settings: Settings::of(&element.policy),
            transport,
        }
    }
}

impl Settings {
    fn of(policy: &Policy) -> Settings {
        use Policy as P;
        let mut settings = Settings { policy: policy.type_code(), ..Settings::default() };
        match *policy {
            P::RoundRobin | P::Random => {}
            P::WeightedRoundRobin { weight } | P::WeightedRandom { weight } => settings.weight = weight,
            P::Priority { priority } => settings.weight = priority,
            P::LeastUsed { load } | P::RandomizedLeastUsed { load } => settings.load = load,
            P::LeastUsedDegradation { load, degradation }
            | P::PriorityLeastUsed { load, degradation }
            | P::RandomizedPriorityLeastUsed { load, degradation }
            | P::RandomizedLeastUsedDegradation { load, degradation }
            | P::PriorityLeastUsedDegradation { load, degradation }
            | P::RandomizedPriorityLeastUsedDegradation { load, degradation } => {
                (settings.load, settings.degradation) = (load, degradation);
            }
            P::WeightedRandomDpf { weight, weight_dpf, distance } => {
                (settings.weight, settings.weight_dpf, settings.distance) = (weight, weight_dpf, distance);
            }
            P::LeastUsedDpf { load, load_dpf, distance } => {
                (settings.load, settings.load_dpf, settings.distance) = (load, load_dpf, distance);
            }
            P::LeastUsedDegradationDpf { load, degradation, load_dpf, distance } => {
                (settings.load, settings.degradation) = (load, degradation);
                (settings.load_dpf, settings.distance) = (load_dpf, distance);
            }
            P::Unknown { .. } => panic!("a policy that has a name"),
        }
        settings
    }
}

/// Bytes in use that the system's allocator has handed out, its own overhead included.
fn heap() -> usize {
    // SAFETY: no pointers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}
