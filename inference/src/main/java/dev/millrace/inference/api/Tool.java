package dev.millrace.inference.api;

/**
 * A function that the model may call.
 *
 * @param parameters its JSON schema as text, key order kept; empty for a function without
 *     parameters
 */
public record Tool(String name, String description, String parameters) {}
