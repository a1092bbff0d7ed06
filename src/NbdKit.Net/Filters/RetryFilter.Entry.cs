namespace NbdKit.Filters;

// The parameters of the catalogue.
public sealed partial class RetryFilter
{
    private static readonly (string Word, NbdError Meaning)[] ErrorNames =
    [
        ("EPERM", NbdError.PermissionDenied),
        ("EIO", NbdError.IoError),
        ("ENOMEM", NbdError.OutOfMemory),
        ("EINVAL", NbdError.InvalidArgument),
        ("ENOSPC", NbdError.NoSpace),
        ("EOVERFLOW", NbdError.Overflow),
        ("ESHUTDOWN", NbdError.Shutdown),
    ];

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "retry",
        "opens the layer below again when requests fail",
        [
            new NbdParameter("retries", "how often a request is tried again (default 5)"),
            new NbdParameter("retry-delay", "how long to wait before that (default 2 seconds)"),
            new NbdParameter("retry-exponential", "whether each further delay is twice the one before (default yes)"),
            new NbdParameter("retry-readonly", "whether to open read-only from the second time on (default no)"),
            new NbdParameter("retry-open", "whether the first open is tried again too (default yes)"),
            new NbdParameter("retry-errors", "errors worth another try, with commas between, or all (default EIO,ENOMEM,ESHUTDOWN)"),
        ],
        Create);

    private static RetryFilter Create(NbdParameters parameters)
    {
        var defaults = new RetryFilter();
        return new RetryFilter
        {
            Retries = parameters.Integer("retries") ?? defaults.Retries,
            RetryDelay = parameters.Delay("retry-delay") ?? defaults.RetryDelay,
            Exponential = parameters.Boolean("retry-exponential") ?? defaults.Exponential,
            ReopenReadOnly = parameters.Boolean("retry-readonly") ?? defaults.ReopenReadOnly,
            RetryOpen = parameters.Boolean("retry-open") ?? defaults.RetryOpen,
            Errors = parameters.Text("retry-errors") is { } errors ? ParseErrors(errors) : defaults.Errors,
        };
    }

    private static NbdError[] ParseErrors(string text)
    {
        if (text == "all")
        {
            return [.. ErrorNames.Select(name => name.Meaning)];
        }
        return [.. text.Split(',', StringSplitOptions.TrimEntries).Select(Parse)];

        NbdError Parse(string word)
        {
            foreach ((string name, NbdError meaning) in ErrorNames)
            {
                if (name == word)
                {
                    return meaning;
                }
            }
            throw new ArgumentException(
                $"retry: retry-errors={text}: '{word}' is not one of {string.Join(", ", ErrorNames.Select(n => n.Word))}.");
        }
    }
}
