namespace NbdKit.Tests.Faults;

/// <summary>Sits on a disk that loses power, and tells of every change and flush that it gets, before and after.</summary>
/// <param name="disk">What the disk takes.</param>
/// <param name="passing">Runs each time; may hold up the call, and fail it.</param>
internal sealed class PowerCutTap(PowerCutDiskKind disk, Func<CancellationToken, ValueTask> passing) : INbdFilter, INbdFilterHandle
{
    public string Name => "tap";

    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken);
        return this;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken) => new(disk switch
    {
        PowerCutDiskKind.EmulatesFua => next.Info with { CanFua = Support.Emulate, CanZero = Support.Emulate },
        PowerCutDiskKind.TakesNoFua => next.Info with { CanFua = Support.None },
        PowerCutDiskKind.TakesNoFlush => next.Info with { CanFlush = false },
        _ => next.Info,
    });

    public async ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        await passing(cancellationToken);
        await next.WriteAsync(data, offset, flags, cancellationToken);
        await passing(cancellationToken);
    }

    public async ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
    {
        await passing(cancellationToken);
        await next.FlushAsync(cancellationToken);
        await passing(cancellationToken);
    }

    public async ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await passing(cancellationToken);
        await next.TrimAsync(offset, length, flags, cancellationToken);
        await passing(cancellationToken);
    }

    public async ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await passing(cancellationToken);
        await next.ZeroAsync(offset, length, flags, cancellationToken);
        await passing(cancellationToken);
    }
}
