namespace NbdKit.Plugins.Scripts;

/// <summary>What a script says went wrong: the name of an error number, then what people are told.</summary>
internal static class ScriptErrors
{
    private static readonly (string Name, NbdError Error)[] Names =
    [
        ("EPERM", NbdError.PermissionDenied),
        ("EIO", NbdError.IoError),
        ("ENOMEM", NbdError.OutOfMemory),
        ("EINVAL", NbdError.InvalidArgument),
        ("ENOSPC", NbdError.NoSpace),
        ("EOVERFLOW", NbdError.Overflow),
        ("ESHUTDOWN", NbdError.Shutdown),
        ("ENOTSUP", NbdError.NotSupported),
        ("EOPNOTSUPP", NbdError.NotSupported),
        ("EROFS", NbdError.PermissionDenied),
        ("EDQUOT", NbdError.NoSpace),
        ("EFBIG", NbdError.NoSpace),
    ];

    /// <summary>The failure that a line on standard error stands for.</summary>
    /// <param name="caller">The plugin and the method.</param>
    /// <param name="line">The line.</param>
    /// <param name="fallback">The error if the line names none.</param>
    public static NbdException Parse(string caller, string line, NbdError fallback)
    {
        NbdError error = fallback;
        string message = line;
        foreach ((string name, NbdError named) in Names)
        {
            // Longer words that begin so are words, not names.
            if (line.StartsWith(name, StringComparison.OrdinalIgnoreCase)
                && (line.Length == name.Length || char.IsWhiteSpace(line[name.Length])))
            {
                error = named;
                message = line[name.Length..].TrimStart();
                break;
            }
        }
        return new NbdException(error, $"{caller}: {(message.Length > 0 ? message : "the script failed without saying why")}");
    }
}
