use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::Pool;

/// How often each part was done.
fn counts(pool: &Pool, parts: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
    pool.run(parts, &|part| {
        counts[part].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn each_part_is_done_once() {
    for threads in [0, 1, 2, 3, 8] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads.max(1));
        for parts in [0, 1, 2, 7, 1000] {
            for _ in 0..200 {
                assert!(counts(&pool, parts).iter().all(|&count| count == 1), "{threads} threads, {parts} parts");
            }
        }
    }
}

#[test]
fn helpers_come_awake_and_asleep() {
    let pool = Pool::new(3);
    for pause in [0, 0, 20] {
        thread::sleep(Duration::from_millis(pause));
        // Other tests use the crew too: it may be busy some times.
        let came = (0..100).any(|_| {
            let ids = Mutex::new(HashSet::new());
            pool.run(3, &|_| {
                ids.lock().expect("no panic").insert(thread::current().id());
                thread::sleep(Duration::from_millis(10));
            });
            ids.into_inner().expect("no panic").len() == 3
        });
        assert!(came, "three threads within 100 times");
    }
}

#[test]
fn no_more_threads_than_a_pool_has() {
    Pool::new(8);
    let ids = Mutex::new(HashSet::new());
    for _ in 0..100 {
        Pool::new(2).run(64, &|_| {
            ids.lock().expect("no panic").insert(thread::current().id());
            thread::sleep(Duration::from_micros(10));
        });
        assert!(ids.lock().expect("no panic").drain().count() <= 2);
    }
}

#[test]
fn a_panic_is_the_callers_and_the_pool_goes_on() {
    let pool = Pool::new(4);
    for bad in [0, 1, 17, 63] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, &|part| {
                thread::sleep(Duration::from_micros(50));
                assert!(part != bad, "part {bad} is bad");
            });
        }));
        let panic = result.expect_err("a panic");
        assert_eq!(*panic.downcast::<String>().expect("a message"), format!("part {bad} is bad"));
        assert!(counts(&pool, 64).iter().all(|&count| count == 1));
    }
    // In every part at once.
    let everywhere = || {
        pool.run(4, &|_| {
            thread::sleep(Duration::from_millis(5));
            panic!("everywhere");
        });
    };
    assert!(catch_unwind(AssertUnwindSafe(everywhere)).is_err());
    assert!(counts(&pool, 64).iter().all(|&count| count == 1));
}

#[test]
fn a_run_within_a_part_is_done_by_its_thread() {
    let pool = Pool::new(4);
    let done = AtomicUsize::new(0);
    pool.run(8, &|_| {
        let here = thread::current().id();
        pool.run(16, &|_| {
            assert_eq!(thread::current().id(), here);
            done.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(done.into_inner(), 8 * 16);
}

#[test]
fn who_finds_the_crew_busy_works_alone() {
    let pool = Pool::new(4);
    let (begun, end) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            pool.run(2, &|part| {
                if part == 0 {
                    begun.wait();
                    end.wait();
                }
            });
        });
        begun.wait();
        let here = thread::current().id();
        pool.clone().run(64, &|_| assert_eq!(thread::current().id(), here));
        end.wait();
    });
}

#[test]
fn many_callers_get_all_their_parts() {
    let pool = Pool::new(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert!(counts(&pool, 9).iter().all(|&count| count == 1));
                }
            });
        }
    });
}

#[test]
fn what_parts_write_is_there_afterwards() {
    let pool = Pool::new(4);
    for _ in 0..100 {
        let numbers: Vec<AtomicUsize> = (0..256).map(|_| AtomicUsize::new(0)).collect();
        pool.run(256, &|part| numbers[part].store(part * part, Ordering::Relaxed));
        let sum: usize = numbers.into_iter().map(AtomicUsize::into_inner).sum();
        assert_eq!(sum, (0..256).map(|part| part * part).sum::<usize>());
    }
}
