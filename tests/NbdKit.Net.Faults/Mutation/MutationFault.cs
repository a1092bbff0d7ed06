namespace NbdKit.Faults.Mutation;

/// <summary>What is wrong with how a stream was taken.</summary>
/// <param name="What">In words.</param>
/// <param name="IsCost">Whether it is time or memory, which others may have taken.</param>
internal sealed record MutationFault(string What, bool IsCost);
