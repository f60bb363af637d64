/**
 * Messages in RabbitMQ, over `amqplib`; results lie in any backend.
 */

/** The broker. */
export * as RabbitBroker from "./RabbitBroker.ts"
