//! Delta debugging: from a list that fails to a shortest part of it that fails still. Pure but for the
//! question it asks.

/// A part of `list` that `fails` and of which nothing can be left out: every single element is needed
/// (Zeller and Hildebrandt's ddmin). `list` itself if it does not fail.
pub fn minimal<T: Clone>(list: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut list = list.to_vec();
    if list.is_empty() || !fails(&list) {
        return list;
    }
    let mut parts = 2.min(list.len());
    loop {
        let size = list.len().div_ceil(parts);
        let shorter = (0..list.len()).step_by(size).find_map(|start| {
            let end = (start + size).min(list.len());
            let rest: Vec<T> = [&list[..start], &list[end..]].concat();
            fails(&rest).then_some(rest)
        });
        match shorter {
            Some(rest) if rest.is_empty() => return rest,
            Some(rest) => {
                list = rest;
                parts = (parts - 1).clamp(2.min(list.len()), list.len());
            }
            None if parts == list.len() => return list,
            None => parts = (2 * parts).min(list.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_fails_and_nothing_can_be_left_out(
            length in 1..60usize,
            needed in proptest::collection::btree_set(0..60usize, 0..5),
        ) {
            let list: Vec<usize> = (0..length).collect();
            let fails = |part: &[usize]| needed.iter().all(|it| part.contains(it));
            let shortest = minimal(&list, fails);
            if fails(&list) {
                prop_assert_eq!(shortest, needed.into_iter().collect::<Vec<_>>());
            } else {
                prop_assert_eq!(shortest, list);
            }
        }

        #[test]
        fn few_questions_are_asked_for_a_long_list(culprit in 0..1000usize) {
            let list: Vec<usize> = (0..1000).collect();
            let mut questions = 0;
            let shortest = minimal(&list, |part| {
                questions += 1;
                part.contains(&culprit)
            });
            prop_assert_eq!(shortest, vec![culprit]);
            prop_assert!(questions < 60, "{}", questions);
        }
    }

    #[test]
    fn list_that_fails_without_anything_is_reduced_to_nothing() {
        assert!(minimal(&[1, 2, 3], |_| true).is_empty());
    }

    #[test]
    fn either_of_two_causes_will_do() {
        let fails = |part: &[u32]| part.contains(&3) || part.contains(&7);
        assert_eq!(minimal(&(0..10).collect::<Vec<_>>(), fails).len(), 1);
    }
}
