namespace NbdKit.Faults.Mutation;

/// <summary>A part of the library that takes bytes which others wrote.</summary>
internal abstract class MutationTarget : IAsyncDisposable
{
    /// <summary>Its name, with which the files of the corpus begin.</summary>
    public abstract string Name { get; }

    /// <summary>Whether the stream is the same one if its pieces are joined.</summary>
    public virtual bool IsStream => true;

    /// <summary>Makes a stream: one that obeys all rules, or one that was spoilt.</summary>
    public abstract MutantStream Make(Random random, bool legal);

    /// <summary>Lets the target take a stream, and judges what it does. One at a time.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="legal">Whether it must be served completely.</param>
    /// <returns>The bytes of payload that the stream declares, which memory may be taken for.</returns>
    /// <exception cref="MutationException">It did wrong.</exception>
    public abstract Task<long> RunAsync(MutantStream stream, bool legal);

    /// <summary>Fails if something that was taken for a stream was not given back.</summary>
    public virtual void CheckBalance()
    {
    }

    public virtual ValueTask DisposeAsync() => default;
}
