namespace NbdKit.Plugins.Mirror;

/// <summary>How a change went on one member.</summary>
internal struct MirrorOutcome
{
    /// <summary>Whether the member was asked at all.</summary>
    public bool TookPart;

    /// <summary>Why it failed, or null.</summary>
    public Exception? Failure;

    /// <summary>Whether it declined because of what was asked, and did nothing.</summary>
    public readonly bool IsRefusal
        => Failure is NotSupportedException or UnauthorizedAccessException
            or NbdException { Error: NbdError.PermissionDenied or NbdError.InvalidArgument or NbdError.NotSupported };

    /// <summary>Whether it said that a fast zero would be slow.</summary>
    public readonly bool IsSlow => Failure is NotSupportedException or NbdException { Error: NbdError.NotSupported };
}
