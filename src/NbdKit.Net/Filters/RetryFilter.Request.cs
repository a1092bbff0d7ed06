namespace NbdKit.Filters;

// One request, so that it can be made again on another context.
public sealed partial class RetryFilter
{
    private enum RetryOperation
    {
        Read,
        Write,
        Flush,
        Trim,
        Zero,
        Cache,
        Extents,
    }

    private readonly struct RetryRequest(RetryOperation operation)
    {
        public RetryOperation Operation { get; } = operation;

        public Memory<byte> Buffer { get; init; }

        public ReadOnlyMemory<byte> Data { get; init; }

        public long Offset { get; init; }

        public long Length { get; init; }

        public RequestFlags Flags { get; init; }

        public ExtentList? Extents { get; init; }

        public bool Changes => Operation is RetryOperation.Write or RetryOperation.Trim or RetryOperation.Zero;

        public bool IsFastZero => (Flags & RequestFlags.FastZero) != 0;

        /// <summary>Makes the request, which was checked against the context.</summary>
        public ValueTask InvokeAsync(NextContext next, CancellationToken cancellationToken)
        {
            switch (Operation)
            {
                case RetryOperation.Read:
                    return next.ReadAsync(Buffer, Offset, cancellationToken);
                case RetryOperation.Write:
                    return next.WriteAsync(Data, Offset, Flags, cancellationToken);
                case RetryOperation.Flush:
                    return next.FlushAsync(cancellationToken);
                case RetryOperation.Trim:
                    return next.TrimAsync(Offset, Length, Flags, cancellationToken);
                case RetryOperation.Zero:
                    return next.ZeroAsync(Offset, Length, Flags, cancellationToken);
                case RetryOperation.Cache:
                    return next.Info.CanCache == Support.None ? default : next.CacheAsync(Offset, Length, cancellationToken);
                default:
                    return ExtentsAsync(next, Extents!, cancellationToken);
            }
        }

        /// <summary>Why the request cannot be made on a context, or null.</summary>
        public NbdException? ObjectionOf(NbdExportInfo info)
        {
            bool supported = Operation switch
            {
                RetryOperation.Write => info.CanWrite,
                RetryOperation.Trim => info.CanTrim,
                RetryOperation.Zero => info.CanZero != Support.None,
                RetryOperation.Flush => info.CanFlush || info.CanFua == Support.Emulate,
                RetryOperation.Extents => info.MetaContexts.Contains(Extents!.MetaContext),
                _ => true,
            };
            if (!supported)
            {
                return Changes
                    ? new NbdException(NbdError.PermissionDenied, $"the disk opened again does not allow this {Operation}")
                    : new NbdException(NbdError.IoError, $"the disk opened again does not support this {Operation}");
            }
            if (Length > 0 && (Offset > info.Size || Length > info.Size - Offset))
            {
                return new NbdException(
                    Changes ? NbdError.NoSpace : NbdError.IoError,
                    $"{Length} bytes at {Offset} are outside the {info.Size} bytes of the disk opened again");
            }
            if ((Flags & RequestFlags.Fua) != 0 && info.CanFua == Support.None)
            {
                return new NbdException(NbdError.IoError, "the disk opened again cannot force unit access");
            }
            return IsFastZero && !info.CanFastZero
                ? new NbdException(NbdError.NotSupported, "the disk opened again has no fast zeroes")
                : null;
        }

        // The answer is the caller's only once it is complete: what a failed attempt added must not be seen.
        private async ValueTask ExtentsAsync(NextContext next, ExtentList answer, CancellationToken cancellationToken)
        {
            long end = Math.Min(answer.End, next.Info.Size);
            var extents = new ExtentList(Offset, end, answer.MetaContext);
            await next.ExtentsAsync(Offset, Length, Flags, extents, cancellationToken).ConfigureAwait(false);
            foreach (Extent extent in extents)
            {
                answer.Add(extent.Offset, extent.Length, extent.Status);
            }
        }
    }
}
