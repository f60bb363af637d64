/** The ids of dead letters. */

/**
 * Returns the id of the dead letter that a generation of a task leaves: `<task id>:<generation>`, with `.<incarnation>`
 * behind it unless that is empty.
 *
 * **When to use**
 *
 * Use it in a backend driver, in `settle` and wherever a task ends as `WorkerLost`.
 *
 * @category dead letters
 * @since 0.1.0
 */
export const deadLetterId = (
  taskId: string,
  { generation, incarnation }: { readonly incarnation: string; readonly generation: number }
): string => `${taskId}:${generation}${incarnation === "" ? "" : `.${incarnation}`}`

/** Returns the id of the task that a dead letter's id begins with. */
export const taskIdOf = (id: string): string => id.replace(/:\d+(\.[0-9a-z]+)?$/, "")
