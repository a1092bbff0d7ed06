namespace NbdKit.Filters;

// The parameters: error, error-rate and error-file for all operations, and the same three for each of them.
public sealed partial class ErrorFilter
{
    private static readonly (string Word, NbdError Meaning)[] Errors =
    [
        ("EPERM", NbdError.PermissionDenied),
        ("EIO", NbdError.IoError),
        ("ENOMEM", NbdError.OutOfMemory),
        ("EINVAL", NbdError.InvalidArgument),
        ("ENOSPC", NbdError.NoSpace),
        ("ESHUTDOWN", NbdError.Shutdown),
    ];

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "error",
        "injects errors",
        [
            .. Parameters("error", "any operation", "EIO", "0", "none: all the time"),
            .. Parameters("error-pread", "reads"),
            .. Parameters("error-pwrite", "writes"),
            .. Parameters("error-trim", "trims"),
            .. Parameters("error-zero", "zeroes"),
            .. Parameters("error-extents", "questions about extents"),
            .. Parameters("error-cache", "prefetches"),
            new NbdParameter("error-seed", "seed of the random numbers (default: a different one each time)"),
        ],
        Create);

    private static NbdParameter[] Parameters(
        string name,
        string operation,
        string error = "that of error",
        string rate = "that of error-rate",
        string file = "that of error-file")
        =>
        [
            new NbdParameter(name, $"error for {operation}: EPERM, EIO, ENOMEM, EINVAL, ENOSPC or ESHUTDOWN (default {error})"),
            new NbdParameter(name + "-rate", $"how often {operation} fail, such as 10% or 0.1 (default {rate})"),
            new NbdParameter(name + "-file", $"{operation} fail only while this file exists (default {file})"),
        ];

    private static ErrorFilter Create(NbdParameters parameters) => new()
    {
        Read = Rule(parameters, "error-pread"),
        Write = Rule(parameters, "error-pwrite"),
        Trim = Rule(parameters, "error-trim"),
        Zero = Rule(parameters, "error-zero"),
        Extents = Rule(parameters, "error-extents"),
        Cache = Rule(parameters, "error-cache"),
        Seed = parameters.Integer("error-seed"),
    };

    private static ErrorRule? Rule(NbdParameters parameters, string name)
    {
        double rate = parameters.Probability(name + "-rate") ?? parameters.Probability("error-rate") ?? 0;
        NbdError error = parameters.OneOf(name, Errors) ?? parameters.OneOf("error", Errors) ?? NbdError.IoError;
        string? file = parameters.Text(name + "-file") ?? parameters.Text("error-file");
        var rule = new ErrorRule { Rate = rate, Error = error, File = file };
        return rate > 0 ? rule : null;
    }
}
