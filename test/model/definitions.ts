/** The tasks of the model tests. */

/** A task's settings. Durations are in units. */
export interface Definition {
  readonly name: string
  readonly delivery: "at-least-once" | "at-most-once"
  readonly maxCrashes: number
  readonly retention: number | undefined
  readonly letterRetention: number | undefined
}

const mail: Definition = {
  name: "mail",
  delivery: "at-least-once",
  maxCrashes: 2,
  retention: undefined,
  letterRetention: undefined
}
/** A task with short retentions. */
const note: Definition = { ...mail, name: "note", maxCrashes: 1, retention: 4.5, letterRetention: 6.5 }
const once: Definition = { ...mail, name: "once", delivery: "at-most-once", letterRetention: 6.5 }
/** A task that asks for taken ids. */
const other: Definition = { ...mail, name: "other" }

export const definitions: ReadonlyArray<Definition> = [mail, note, once, other]

export const definitionOf = (task: string): Definition =>
  definitions.find(({ name }) => name === task) ?? mail

const byId: Readonly<Record<string, Definition>> = { c: note, q: note, d: once }

/** Returns the name of an id's task, which never changes. */
export const taskOf = (id: string): string => (byId[id] ?? mail).name

/** Whether an id is of a task without a key, whose message is published first. */
export const isPublishFirst = (id: string): boolean => id === "p" || id === "q"
