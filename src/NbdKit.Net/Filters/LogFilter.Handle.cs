using System.Globalization;
using NbdKit.Layers;

namespace NbdKit.Filters;

// One context: its requests, two lines each.
public sealed partial class LogFilter
{
    private sealed class LogHandle(LogFilter filter, string prefix, NbdContext context) : INbdFilterHandle
    {
        private long _requests;

        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            NbdExportInfo info = next.Info;
            filter.Write(string.Create(
                CultureInfo.InvariantCulture,
                $"{prefix}Connect export={Quote(context.ExportName)} tls={Bit(context.IsTls)} size=0x{info.Size:x} "
                + $"minsize=0x{info.BlockSize.Minimum:x} prefsize=0x{info.BlockSize.Preferred:x} "
                + $"maxsize=0x{info.BlockSize.Maximum:x} write={Bit(info.CanWrite)} flush={Bit(info.CanFlush)} "
                + $"rotational={Bit(info.IsRotational)} trim={Bit(info.CanTrim)} zero={(int)info.CanZero} "
                + $"fua={(int)info.CanFua} extents={Bit(info.CanExtents)} cache={(int)info.CanCache} "
                + $"fast_zero={Bit(info.CanFastZero)} multi_conn={Bit(info.CanMultiConn)}"));
            return default;
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            // What would be emulated above this layer would be logged as the requests that it is made of: have it come
            // through here as what it is, and be emulated below.
            NbdExportInfo info = next.Info;
            return new(info with
            {
                CanZero = info.CanZero.ComesThrough(),
                CanFua = info.CanFua.ComesThrough(),
                CanCache = info.CanCache.ComesThrough(),
                CanExtents = true,
                CanReadSparse = info.CanReadSparse.ComesThrough(),
            });
        }

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => RunAsync(
                "Read", Range(offset, buffer.Length), () => next.ReadAsync(buffer, offset, cancellationToken));

        public ValueTask ReadSparseAsync(
            NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
            => RunAsync(
                "Read", Range(offset, buffer.Length), () => next.ReadSparseAsync(buffer, offset, extents, cancellationToken));

        public ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
            => RunAsync(
                "Write",
                $"{Range(offset, data.Length)} fua={Flag(flags, RequestFlags.Fua)}",
                () => next.WriteAsync(data, offset, flags, cancellationToken));

        public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
            => RunAsync("Flush", "", () => next.FlushAsync(cancellationToken));

        public ValueTask TrimAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => RunAsync(
                "Trim",
                $"{Range(offset, length)} fua={Flag(flags, RequestFlags.Fua)}",
                () => next.TrimAsync(offset, length, flags, cancellationToken));

        public ValueTask ZeroAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => RunAsync(
                "Zero",
                $"{Range(offset, length)} trim={Flag(flags, RequestFlags.MayTrim)} fua={Flag(flags, RequestFlags.Fua)} "
                + $"fast={Flag(flags, RequestFlags.FastZero)}",
                () => next.ZeroAsync(offset, length, flags, cancellationToken));

        public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
            => RunAsync("Cache", Range(offset, length), () => next.CacheAsync(offset, length, cancellationToken));

        public ValueTask ExtentsAsync(
            NextContext next,
            long offset,
            long length,
            RequestFlags flags,
            ExtentList extents,
            CancellationToken cancellationToken)
            => RunAsync(
                "Extents",
                $"{Range(offset, length)} req_one={Flag(flags, RequestFlags.RequestOne)} context={Quote(extents.MetaContext)}",
                () => next.ExtentsAsync(offset, length, flags, extents, cancellationToken),
                () => $"extents=[{string.Join(", ", extents.Select(e => Text(e, extents.MetaContext)))}] ");

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
        {
            filter.Write(string.Create(
                CultureInfo.InvariantCulture, $"{prefix}Disconnect transactions={Interlocked.Read(ref _requests)}"));
            return default;
        }

        public ValueTask CloseAsync()
        {
            filter.Write($"{prefix}Close");
            return default;
        }

        private async ValueTask RunAsync(
            string operation, string arguments, Func<ValueTask> request, Func<string>? answer = null)
        {
            string id = string.Create(CultureInfo.InvariantCulture, $"id={Interlocked.Increment(ref _requests)}");
            filter.Write($"{prefix}{operation} {id}{(arguments.Length > 0 ? " " : "")}{arguments} ...");
            try
            {
                await request().ConfigureAwait(false);
            }
            catch (Exception e)
            {
                filter.Write($"{prefix}...{operation} {id} {Failure(e)}");
                throw;
            }
            filter.Write($"{prefix}...{operation} {id} {answer?.Invoke()}return=0");
        }

        private static string Range(long offset, long length)
            => string.Create(CultureInfo.InvariantCulture, $"offset=0x{offset:x} count=0x{length:x}");

        private static int Flag(RequestFlags flags, RequestFlags flag) => Bit((flags & flag) != 0);

        private static string Text(Extent extent, string metaContext)
        {
            string type = metaContext != ExtentList.BaseAllocation
                ? string.Create(CultureInfo.InvariantCulture, $"0x{(ulong)extent.Status:x}")
                : extent.Status switch
                {
                    ExtentStatus.Data => "data",
                    ExtentStatus.Hole => "hole",
                    ExtentStatus.Zero => "zero",
                    ExtentStatus.Hole | ExtentStatus.Zero => "hole,zero",
                    _ => string.Create(CultureInfo.InvariantCulture, $"0x{(ulong)extent.Status:x}"),
                };
            return string.Create(
                CultureInfo.InvariantCulture, $"{{ offset=0x{extent.Offset:x}, length=0x{extent.Length:x}, type=\"{type}\" }}");
        }
    }
}
