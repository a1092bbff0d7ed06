using NbdKit.Protocol;

namespace NbdKit;

// What is refused before it is sent: only what NbdClientOptions.Strictness says.
public sealed partial class NbdClient
{
    /// <summary>Whether a check is on.</summary>
    private bool Checks(NbdStrictness check) => (_options.Strictness & check) != 0;

    /// <summary>Whether a request of so many bytes is done without being sent.</summary>
    private bool IsNothing(long length) => length == 0 && Checks(NbdStrictness.ZeroLength);

    /// <summary>What is wrong with a request that the server has to offer, or null.</summary>
    private NbdException? CheckCommand(TransmissionFlags needed, string what)
        => Checks(NbdStrictness.Commands) && (_flags & needed) != needed
            ? new NbdException(NbdError.InvalidArgument, $"The server does not offer {what} for this export.")
            : null;

    private NbdException? CheckWritable()
        => Checks(NbdStrictness.Commands) && (_flags & TransmissionFlags.ReadOnly) != 0
            ? new NbdException(NbdError.PermissionDenied, "The export is read-only.")
            : null;

    private NbdException? CheckRange(long offset, long length, NbdError outside)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        if (Checks(NbdStrictness.Bounds) && (offset > _size || length > _size - offset))
        {
            return new NbdException(outside, $"{length} bytes at {offset} are not inside of the export, which has {_size} bytes.");
        }
        if (Checks(NbdStrictness.Alignment) && _minimum > 1 && ((offset | length) & (_minimum - 1)) != 0)
        {
            return new NbdException(
                NbdError.InvalidArgument, $"{length} bytes at {offset} are not whole blocks of {_minimum} bytes.");
        }
        return null;
    }

    private NbdException? CheckFlags(RequestFlags flags, RequestFlags allowed)
    {
        if (!Checks(NbdStrictness.Flags))
        {
            return null;
        }
        if ((flags & ~allowed) != 0)
        {
            return new NbdException(NbdError.InvalidArgument, $"The flags {flags & ~allowed} do not belong to this command.");
        }
        if ((flags & RequestFlags.Fua) != 0 && (_flags & TransmissionFlags.SendFua) == 0)
        {
            return new NbdException(NbdError.InvalidArgument, "The server does not offer forced unit access for this export.");
        }
        if ((flags & RequestFlags.FastZero) != 0 && (_flags & TransmissionFlags.SendFastZero) == 0)
        {
            return new NbdException(NbdError.InvalidArgument, "The server does not offer fast zeroes for this export.");
        }
        return null;
    }

    private static CommandFlags FuaOf(RequestFlags flags)
        => (flags & RequestFlags.Fua) != 0 ? CommandFlags.Fua : CommandFlags.None;
}
