/** The model of a backend's requests: create, cancel, forget, park and reopen. */
import type { CancelAnswer, Created, NewRecord, ParkedMessage } from "../../src/BackendDriver.ts"
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
    const { expiresMillis, id, key, payloadHash, published, retentionMillis, task } = record
    const expiresAt = expiresMillis === undefined ? null : now + expiresMillis
    const made = { ...initial, id, task, key, published, expiresAt, retention: retentionMillis }
    const created: Task = {
      ...made,
      generation: 0,
      hash: payloadHash,
      enqueuedAt: now,
      fence: 0,
      settled: undefined
    }
    return [{ _tag: "Created" }, put(all, created)]
  }
  const { hash, id, published, task } = existing
  const known = hash !== "" && record.payloadHash !== ""
  const same = task === record.task && (!known || hash === record.payloadHash)
  const answer: Created = { _tag: "Existing", id, same, published }
  // a record that a run created does not know the enqueue
  if (!same || hash !== "" || existing.ended === "Forgotten") return [answer, all]
  const adopted = {
    hash: record.payloadHash,
    key: existing.key ?? record.key,
    enqueuedAt: existing.enqueuedAt ?? now
  }
  return [answer, put(all, { ...existing, ...adopted })]
}

/** Marks a reservation as published. */
export const markPublished = (all: Tasks, id: string, now: number): Tasks => {
  const task = find(all, id, now)
  return task === undefined ? all : put(all, { ...task, published: true })
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

/** Reopens the task of a dead letter in its next generation. */
export const reopen = (all: Tasks, letterId: string, now: number): Step<StoredDeadLetter | undefined> => {
  const letter = findDeadLetter(all, letterId, now)
  if (letter === undefined || letter.taskId === null) return [letter, all]
  const { fence, generation, task, taskId: id } = letter
  const found = find(all, id, now)
  const next = { ...initial, generation: generation + 1, published: true, enqueuedAt: now }
  if (found === undefined) {
    const missing = { key: undefined, hash: "", retention: letter.taskRetention, fence, settled: undefined }
    return [letter, put(all, { ...next, ...missing, id, task: task ?? "" })]
  }
  return isFinal(found) && found.generation <= generation
    ? [letter, put(all, { ...found, ...next, settled: outdated(found) })]
    : [letter, all]
}

/** Removes a letter; returns whether it existed. */
export const removeDeadLetter = (all: Tasks, id: string, now: number): Step<boolean> => {
  const letters = new Map(all.letters)
  letters.delete(id)
  return [findDeadLetter(all, id, now) !== undefined, { ...all, letters }]
}
