namespace NbdKit.Filters;

/// <summary>
/// Makes it safe for one client to use several connections over a plugin that is not made for that, or says that it is. Clients
/// such as nbdcopy and the Linux kernel are faster then. Corresponds to nbdkit-multi-conn-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// While it emulates, a flush on one connection flushes the layers below every connection: first those with something
/// written, all at the same time; then those that read or wrote before that was done, so that none serves what others have
/// replaced. A flush that fails on any connection fails. A connection that ends is flushed if it has to be; should that fail, the
/// next flush on every other connection fails once.
/// </para>
/// <para>
/// Unlike nbdkit, a write counts from its end on, so that none slips through between two flushes; nothing waits for another
/// flush; connections of other modes than <see cref="MultiConnMode.Emulate"/> pass every flush on; and
/// <see cref="MultiConnMode.Auto"/> over a layer that cannot flush disables multi-conn instead of failing the open.
/// </para>
/// </remarks>
public sealed partial class MultiConnFilter : INbdFilter
{
    private bool _takesOne;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "multi-conn",
        "makes several connections of one client safe",
        [
            new NbdParameter(
                "multi-conn-mode",
                "auto (the default), emulate (a flush covers all connections), plugin (as below), disable, or unsafe (only promise)"),
            new NbdParameter(
                "multi-conn-track-dirty",
                "fast (all connections are flushed if anything was written; the default), connection (those that need it) or off (all)"),
            new NbdParameter("multi-conn-exportname", "whether a flush covers only connections to the same export (default no)"),
        ],
        Create);

    /// <summary>What is promised, and how it is kept.</summary>
    /// <value><see cref="MultiConnMode.Auto"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a mode.</exception>
    public MultiConnMode Mode
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new ArgumentOutOfRangeException(nameof(value), value, null);
    }

    /// <summary>Which connections a flush reaches.</summary>
    /// <value><see cref="MultiConnTracking.Fast"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a way of tracking.</exception>
    public MultiConnTracking TrackDirty
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new ArgumentOutOfRangeException(nameof(value), value, null);
    }

    /// <summary>
    /// Whether a flush covers only connections to the export of the same name. False, the default, covers all, as several
    /// names may stand for the same content.
    /// </summary>
    public bool ByExportName { get; init; }

    /// <inheritdoc/>
    public string Name => "multi-conn";

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        _takesOne = model == ThreadModel.SerializeConnections;
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new Handle(this, context.ExportName);
    }

    private MultiConnMode Resolve(NbdExportInfo info)
    {
        bool canFlush = CanFlush(info);
        switch (Mode)
        {
            case MultiConnMode.Auto:
                return info.CanMultiConn ? MultiConnMode.Plugin
                    : _takesOne || !canFlush ? MultiConnMode.Disable
                    : MultiConnMode.Emulate;
            case MultiConnMode.Emulate when !canFlush && info.CanWrite:
                throw new NbdException(NbdError.InvalidArgument, "multi-conn cannot be emulated over a layer that cannot flush");
            default:
                return Mode;
        }
    }

    private static bool CanFlush(NbdExportInfo info) => info.CanFlush || info.CanFua == Support.Emulate;

    private static MultiConnFilter Create(NbdParameters parameters) => new()
    {
        Mode = parameters.OneOf(
            "multi-conn-mode",
            ("auto", MultiConnMode.Auto),
            ("emulate", MultiConnMode.Emulate),
            ("plugin", MultiConnMode.Plugin),
            ("disable", MultiConnMode.Disable),
            ("unsafe", MultiConnMode.Unsafe)) ?? MultiConnMode.Auto,
        TrackDirty = parameters.OneOf(
            "multi-conn-track-dirty",
            ("fast", MultiConnTracking.Fast),
            ("connection", MultiConnTracking.Connection),
            ("off", MultiConnTracking.Off)) ?? MultiConnTracking.Fast,
        ByExportName = parameters.Boolean("multi-conn-exportname") ?? false,
    };
}
