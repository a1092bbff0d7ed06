using System.Runtime.CompilerServices;

namespace NbdKit.Filters;

// One connection: notes what was done on it.
public sealed partial class MultiConnFilter
{
    private sealed class Handle(MultiConnFilter filter, string exportName) : INbdFilterHandle
    {
        public bool KeepsNext => true;

        private MultiConnMode _mode;
        private Member? _member;

        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            _mode = filter.Resolve(next.Info);
            if (_mode == MultiConnMode.Emulate && CanFlush(next.Info))
            {
                _member = filter.Join(next, exportName);
            }
            return default;
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            NbdExportInfo info = next.Info;
            return new(_mode switch
            {
                MultiConnMode.Emulate => info with
                {
                    CanMultiConn = true,
                    CanFlush = info.CanFlush || _member is not null,
                    CanFua = info.CanFua == Support.Native && _member is not null ? Support.Emulate : info.CanFua,
                },
                MultiConnMode.Disable => info with { CanMultiConn = false },
                MultiConnMode.Unsafe => info with { CanMultiConn = true },
                _ => info,
            });
        }

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => Note(next.ReadAsync(buffer, offset, cancellationToken), isWrite: false);

        public ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
            => Note(next.WriteAsync(data, offset, flags, cancellationToken), isWrite: true);

        public ValueTask TrimAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Note(next.TrimAsync(offset, length, flags, cancellationToken), isWrite: true);

        public ValueTask ZeroAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Note(next.ZeroAsync(offset, length, flags, cancellationToken), isWrite: true);

        public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
            => Note(next.CacheAsync(offset, length, cancellationToken), isWrite: false);

        public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
            => _member is { } member
                ? member.Group.FlushAsync(member, filter.TrackDirty, cancellationToken)
                : next.FlushAsync(cancellationToken);

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
            => _member is { } member ? filter.LeaveAsync(member, cancellationToken) : default;

        private ValueTask Note(ValueTask pending, bool isWrite)
        {
            if (_member is not { } member)
            {
                return pending;
            }
            if (!pending.IsCompletedSuccessfully)
            {
                return NoteLaterAsync(pending, member, isWrite);
            }
            member.Note(isWrite);
            return pending;
        }

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
        private static async ValueTask NoteLaterAsync(ValueTask pending, Member member, bool isWrite)
        {
            try
            {
                await pending.ConfigureAwait(false);
            }
            finally
            {
                // One that failed may have done a part of it.
                member.Note(isWrite);
            }
        }
    }
}
