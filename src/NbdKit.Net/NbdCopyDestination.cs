namespace NbdKit;

/// <summary>What <see cref="NbdCopy"/> copies to. Whoever made it keeps what it was made of, and disposes of it.</summary>
public sealed class NbdCopyDestination
{
    private NbdCopyDestination(IReadOnlyList<NextContext> contexts, Stream? stream)
    {
        Contexts = contexts;
        Stream = stream;
    }

    /// <summary>Takes everything and keeps nothing: to measure a source, or to hash it.</summary>
    public static NbdCopyDestination Null { get; } = new([], null);

    internal IReadOnlyList<NextContext> Contexts { get; }

    internal Stream? Stream { get; }

    /// <summary>
    /// Copies to an opened disk, which must be at least as large as the source; what it has beyond is left alone.
    /// </summary>
    /// <param name="contexts">
    /// The disk, as <see cref="NbdBackend.OpenAsync"/> returns it; if it was opened several times, the work is spread over all.
    /// </param>
    /// <exception cref="ArgumentException">
    /// There is none, they differ in size, or there are several and one does not say
    /// <see cref="NbdExportInfo.CanMultiConn"/>.
    /// </exception>
    public static NbdCopyDestination To(params IReadOnlyList<NextContext> contexts)
        => new(Copy.ContextSet.Check(contexts), null);

    /// <summary>Copies to a stream from its position on, writing it in order.</summary>
    /// <param name="stream">
    /// A pipe, a file, standard output. Zeroes are written to it, unless it can seek and
    /// <see cref="NbdCopyOptions.DestinationIsZero"/> says that they need not be.
    /// </param>
    /// <exception cref="ArgumentException">The stream cannot be written.</exception>
    public static NbdCopyDestination To(Stream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        return stream.CanWrite
            ? new NbdCopyDestination([], stream)
            : throw new ArgumentException("The stream cannot be written.", nameof(stream));
    }
}
