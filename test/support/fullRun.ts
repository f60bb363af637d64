/** The extent of the fault suites. */

/** Whether the full form runs, as `npm run test:faults` asks; otherwise a short form. */
export const isFullRun: boolean = process.env["CHICORY_TEST_FAULTS"] === "all"
