/**
 * Lanes: where stores keep the messages that claims by task have set aside. The lane of a task in a queue has messages of that task
 * which are ready, out of the way of the workers that do not know it.
 *
 * In SQL a lane is a queue of its own, with a name that no worker names: a message in it is as it was but for its queue, and
 * is claimed, counted and purged by what there is for queues. These names begin with a character that comes before every other,
 * so that one statement finds them, or finds that there are none.
 */

/** A lane: the messages of a task that were set aside in a queue. */
export interface Lane {
  readonly queue: string
  /** The task's name. */
  readonly task: string
}

/** Returns whether two lanes are the same. */
export const isSameLane = (one: Lane, other: Lane): boolean =>
  one.queue === other.queue && one.task === other.task

/** How many tasks of a queue are listed at most. */
const LISTED_TASKS = 100

/** Returns as many lanes of each queue as `SetAside.tasks` lists. */
export const limitListed = <A extends Lane>(lanes: ReadonlyArray<A>): ReadonlyArray<A> =>
  Array.from(Map.groupBy(lanes, ({ queue }) => queue).values(), (ofQueue) =>
    ofQueue.slice(0, LISTED_TASKS)
  ).flat()

/** What the name of every lane begins with. */
const MARK = "\u0001"
/** The names of lanes lie between these two, in the order of their bytes. */
export const LANES: readonly [after: string, before: string] = [MARK, "\u0002"]

/** Returns the name of a lane. The length of the queue says where the queue ends and the task begins. */
export const encode = ({ queue, task }: Lane): string => `${MARK}${queue.length}:${queue}${task}`

/** Whether a name may be that of a lane. */
export const isName = (name: string): boolean => name.startsWith(MARK)

// oxlint-disable-next-line no-control-regex -- the mark
const NAME = /^\u0001(\d+):/

/** Returns the lane of a name; `undefined` for the name of a queue. */
export const decode = (name: string): Lane | undefined => {
  const [head, length] = NAME.exec(name) ?? []
  if (head === undefined) return undefined
  const end = head.length + Number(length)
  return end <= name.length ? { queue: name.slice(head.length, end), task: name.slice(end) } : undefined
}

/** Returns the queue of a message that may lie in a lane. */
export const queueOf = (name: string): string => decode(name)?.queue ?? name
