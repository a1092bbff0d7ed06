namespace NbdKit;

/// <summary>What <see cref="NbdCopy"/> copies from. Whoever made it keeps what it was made of, and disposes of it.</summary>
public sealed class NbdCopySource
{
    private NbdCopySource(IReadOnlyList<NextContext> contexts, Stream? stream)
    {
        Contexts = contexts;
        Stream = stream;
    }

    internal IReadOnlyList<NextContext> Contexts { get; }

    internal Stream? Stream { get; }

    /// <summary>Copies an opened disk. Nothing else may change it meanwhile.</summary>
    /// <param name="contexts">
    /// The disk, as <see cref="NbdBackend.OpenAsync"/> returns it; if it was opened several times, the work is spread over all.
    /// </param>
    /// <exception cref="ArgumentException">
    /// There is none, they differ in size, or there are several and one does not say
    /// <see cref="NbdExportInfo.CanMultiConn"/>.
    /// </exception>
    public static NbdCopySource From(params IReadOnlyList<NextContext> contexts)
        => new(Copy.ContextSet.Check(contexts), null);

    /// <summary>Copies a stream from its position to its end, reading it in order.</summary>
    /// <param name="stream">A pipe, a file, standard input.</param>
    /// <exception cref="ArgumentException">The stream cannot be read.</exception>
    public static NbdCopySource From(Stream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        return stream.CanRead
            ? new NbdCopySource([], stream)
            : throw new ArgumentException("The stream cannot be read.", nameof(stream));
    }
}
