using NbdKit.Filters.Caching;

namespace NbdKit.Filters;

// One context: the export's cache, and the context below.
public sealed partial class CacheFilter
{
    private sealed class CacheHandle(CacheFilter filter, NbdContext context) : INbdFilterHandle
    {
        private CacheImage? _image;
        private CacheUser? _user;

        private CacheImage Image => _image!;

        private CacheUser User => _user!;

        private bool IsWriteThrough => filter.Mode == CacheMode.WriteThrough;

        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            _image = filter.Acquire(context, next.Info);
            _user = new CacheUser(next);
            _image.Enter(_user);
            return default;
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            NbdExportInfo info = next.Info with
            {
                BlockSize = next.Info.BlockSize.PreferringAtLeast(Image.BlockSize),
                CanCache = Support.Native,
            };
            return new(IsWriteThrough ? info : info with
            {
                CanFlush = true,
                CanFua = filter.Mode == CacheMode.Unsafe || User.CanFlush || info.CanFua != Support.None
                    ? Support.Native
                    : Support.None,
                CanMultiConn = true,
                // What changed blocks mean in any other context is not known here.
                MetaContexts = [ExtentList.BaseAllocation],
            });
        }

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => Image.ReadAsync(User, buffer, offset, filter.KeepsReads, cancellationToken);

        public ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
            => Image.WriteAsync(User, data, offset, Obeyed(flags), cancellationToken);

        public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
            => Image.FlushAsync(User, cancellationToken);

        public ValueTask TrimAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Image.TrimAsync(User, offset, length, Obeyed(flags), cancellationToken);

        public ValueTask ZeroAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Image.ZeroAsync(User, offset, length, Obeyed(flags), cancellationToken);

        public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
            => Image.PrefetchAsync(User, offset, length, cancellationToken);

        public ValueTask ExtentsAsync(
            NextContext next,
            long offset,
            long length,
            RequestFlags flags,
            ExtentList extents,
            CancellationToken cancellationToken)
            => IsWriteThrough
                ? next.ExtentsAsync(offset, length, flags, extents, cancellationToken)
                : Image.ExtentsAsync(User, offset, length, flags, extents, cancellationToken);

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
            => Image.LeaveAsync(User, cancellationToken);

        public ValueTask CloseAsync()
        {
            if (Interlocked.Exchange(ref _image, null) is { } image)
            {
                filter.Release(context, image);
            }
            return default;
        }

        private RequestFlags Obeyed(RequestFlags flags)
            => filter.Mode == CacheMode.Unsafe ? flags & ~RequestFlags.Fua : flags;
    }
}
