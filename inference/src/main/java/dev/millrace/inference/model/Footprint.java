package dev.millrace.inference.model;

import dev.millrace.inference.checkpoint.WeightFormat;

/**
 * What a network's numbers take on its device: the bytes that a step must read at the least.
 *
 * @param bodyBytes of the matrices that every token goes through: all but embedding and output
 * @param bodyWeights how many numbers these are
 * @param outputBytes of the output layer, which only rows with logits go through
 * @param outputWeights how many numbers these are
 * @param kvTokenBytes keys and values of one token, over all layers
 * @param format of most of the body
 */
public record Footprint(
    long bodyBytes,
    long bodyWeights,
    long outputBytes,
    long outputWeights,
    long kvTokenBytes,
    WeightFormat format) {}
