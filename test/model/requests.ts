/** The model of a backend's requests: create, mark, cancel, withdraw, forget, park and reopen. */
import type {
  CancelAnswer,
  Created,
  NewRecord,
  ParkedMessage,
  PublishedRecord
} from "../../src/BackendDriver.ts"
import type { PurgedMessage } from "../../src/BrokerDriver.ts"
import {
  initial,
  endBy,
  find,
  findDeadLetter,
  hasExpired,
  isFinal,
  deadline,
  type StoredDeadLetter,
  outdated,
  put,
  putDeadLetter,
  remove,
  type Step,
  type Task,
  type Tasks
} from "./tasks.ts"

/** Reserves an id and a key, or returns the task that holds them. */
export const create = (all: Tasks, record: NewRecord, now: number): Step<Created> => {
  const ofKey = [...all.tasks.values()].find(
    ({ id, key, task }) =>
      key !== undefined && key === record.key && task === record.task && find(all, id, now) !== undefined
  )
  const existing = ofKey ?? find(all, record.id, now)
  if (existing === undefined) {
    const { delayMillis, expiresMillis, id, incarnation, key, payloadHash, reservedMillis } = record
    const created: Task = {
      ...initial,
      id,
      task: record.task,
      incarnation,
      queue: record.queue,
      generation: 0,
      key,
      hash: payloadHash,
      enqueuedAt: now,
      dueAt: delayMillis > 0 ? now + delayMillis : null,
      expiresAt: expiresMillis === undefined ? null : now + expiresMillis,
      reservedUntil: reservedMillis === undefined ? undefined : now + reservedMillis,
      retention: record.retentionMillis,
      fence: 0,
      settled: undefined
    }
    return [{ _tag: "Created" }, put(all, created)]
  }
  const { ended, generation, hash, id, incarnation, reservedUntil, task } = existing
  const differs = hash !== "" && record.payloadHash !== "" && hash !== record.payloadHash
  // the id of a forgotten task that has not ended is free only once it ends
  const same = task === record.task && !differs && ended !== "Forgotten"
  const published = reservedUntil === undefined
  const answer: Created = { _tag: "Existing", id, incarnation, generation, same, published }
  if (!same) return [answer, all]
  // a record that a replay created does not know its enqueue
  const known =
    hash === "" ? { ...existing, hash: record.payloadHash, key: existing.key ?? record.key } : existing
  // a reservation is renewed
  const renewed =
    isFinal(known) || reservedUntil === undefined || record.reservedMillis === undefined
      ? known
      : { ...known, reservedUntil: Math.max(reservedUntil, now + record.reservedMillis) }
  return [answer, renewed === existing ? all : put(all, renewed)]
}

/** Marks a reservation of a generation as published; returns whether there is a record of that incarnation. */
export const markPublished = (
  all: Tasks,
  { generation, id, incarnation }: PublishedRecord,
  now: number
): Step<boolean> => {
  const task = find(all, id, now)
  if (task?.incarnation !== incarnation) return [false, all]
  return [true, task.generation === generation ? put(all, { ...task, reservedUntil: undefined }) : all]
}

/** Ends a waiting task, or stores the request for a running one. */
export const cancel = (all: Tasks, id: string, now: number): Step<CancelAnswer> => {
  const found = find(all, id, now)
  if (found === undefined) return ["Unknown", all]
  const after = hasExpired(found, now) ? endBy(all, found, now, "Expired") : all
  const task = find(after, id, now)
  if (task === undefined || isFinal(task)) return ["AlreadyDone", after]
  return task.run === undefined
    ? ["Cancelled", endBy(after, task, now, "Cancelled")]
    : ["Requested", put(after, { ...task, cancelRequested: true })]
}

/** Ends the task of a message that was removed, at once if it waits, and otherwise unless its run ends it. */
export const withdraw = (all: Tasks, { generation, id, incarnation }: PurgedMessage, now: number): Tasks => {
  const task = find(all, id, now)
  if (task === undefined || isFinal(task)) return all
  if (task.incarnation !== incarnation || task.generation !== generation) return all
  if (task.run !== undefined) return put(all, { ...task, withdrawn: true })
  return endBy(all, task, now, hasExpired(task, now) ? "Expired" : "Cancelled")
}

/** Removes an ended task and marks an unfinished one. Its key is free. */
export const forget = (all: Tasks, id: string, now: number): Tasks => {
  const task = find(all, id, now)
  if (task === undefined) return all
  return isFinal(task) ? remove(all, id) : put(all, { ...task, ended: "Forgotten", key: undefined })
}

/** Writes a dead letter without a run, once. */
export const park = (all: Tasks, parked: ParkedMessage, now: number): Tasks => {
  const { body, exit, deadLetterId: id, queue, reason, retentionMillis } = parked
  if (findDeadLetter(all, id, now) !== undefined) return all
  const withoutTask = {
    taskId: null,
    task: null,
    incarnation: "",
    generation: 0,
    worker: null,
    attempts: 0,
    fence: 0,
    taskRetention: undefined
  }
  return putDeadLetter(all, {
    ...withoutTask,
    id,
    queue,
    reason,
    exit,
    body,
    at: now,
    until: deadline(now, retentionMillis)
  })
}

/** Answer to a request to reopen the task of a dead letter. */
export interface Reopened {
  readonly letter: StoredDeadLetter
  readonly replayable: boolean
}

/**
 * Reopens the task of a dead letter as a reservation of its next generation, or renews that reservation, unless another
 * task has its id now.
 */
export const reopen = (
  all: Tasks,
  letterId: string,
  reservedMillis: number,
  now: number
): Step<Reopened | undefined> => {
  const letter = findDeadLetter(all, letterId, now)
  if (letter === undefined) return [undefined, all]
  const { fence, generation, incarnation, queue, task, taskId: id, taskRetention: retention } = letter
  if (id === null) return [{ letter, replayable: true }, all]
  const found = find(all, id, now)
  const reservedUntil = now + reservedMillis
  const next = { ...initial, generation: generation + 1, enqueuedAt: now, reservedUntil }
  if (found === undefined) {
    const unknown = { key: undefined, hash: "", settled: undefined }
    const created = { ...next, ...unknown, id, task: task ?? "", incarnation, queue, retention, fence }
    return [{ letter, replayable: true }, put(all, created)]
  }
  if (found.incarnation !== incarnation) return [{ letter, replayable: false }, all]
  const answer = { letter, replayable: true }
  if (isFinal(found)) {
    return [
      answer,
      found.generation <= generation ? put(all, { ...found, ...next, settled: outdated(found) }) : all
    ]
  }
  if (found.generation !== next.generation || found.reservedUntil === undefined) return [answer, all]
  return [answer, put(all, { ...found, reservedUntil: Math.max(found.reservedUntil, reservedUntil) })]
}

/** Removes a letter; returns whether it existed. */
export const removeDeadLetter = (all: Tasks, id: string, now: number): Step<boolean> => {
  const letters = new Map(all.letters)
  letters.delete(id)
  return [findDeadLetter(all, id, now) !== undefined, { ...all, letters }]
}
