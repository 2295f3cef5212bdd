//! Strongly connected components, without recursion: grammars may chain thousands of rules.

/// The components of a graph of `nodes` nodes, each after every component it leads to.
pub(super) fn components(nodes: usize, next: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; nodes];
    let mut low = vec![0; nodes];
    let mut open = vec![false; nodes];
    let mut stack = Vec::new();
    let mut result = Vec::new();
    let mut count = 0;
    for root in 0..nodes {
        if order[root] != UNSEEN {
            continue;
        }
        // Each frame is a node and its successors not yet visited.
        let mut frames = vec![(root, None::<std::vec::IntoIter<usize>>)];
        while let Some((node, rest)) = frames.last_mut() {
            let node = *node;
            let rest = rest.get_or_insert_with(|| {
                order[node] = count;
                low[node] = count;
                count += 1;
                stack.push(node);
                open[node] = true;
                next(node).into_iter()
            });
            match rest.next() {
                Some(to) if order[to] == UNSEEN => frames.push((to, None)),
                Some(to) if open[to] => low[node] = low[node].min(order[to]),
                Some(_) => {}
                None => {
                    frames.pop();
                    if let Some(&(parent, _)) = frames.last() {
                        low[parent] = low[parent].min(low[node]);
                    }
                    if low[node] == order[node] {
                        let at = stack.iter().rposition(|&n| n == node).unwrap_or(0);
                        let component = stack.split_off(at);
                        for &member in &component {
                            open[member] = false;
                        }
                        result.push(component);
                    }
                }
            }
        }
    }
    result
}
