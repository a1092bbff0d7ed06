using System.Text;

namespace NbdKit.Plugins;

// The plugin by name.
public sealed partial class DataPlugin
{
    /// <summary>
    /// The plugin in the catalogue: <c>data</c>, with one of the parameters <c>data</c> (the magic one), <c>raw</c> and
    /// <c>base64</c>, and <c>size</c>. Any other parameter is a variable of <c>data</c>.
    /// </summary>
    public static NbdPluginEntry Entry { get; } = new(
        "data",
        "a disk in memory that begins with the bytes given",
        [
            new NbdParameter("data", "first bytes of the disk, as an expression such as '0x55*4 @0x1fe 0x55 0xaa'"),
            new NbdParameter("base64", "first bytes of the disk, in base64"),
            new NbdParameter("raw", "first bytes of the disk, as text in UTF-8"),
            new NbdParameter("size", "size of the disk; adds zeroes or cuts off bytes (as many as there are bytes)"),
            new NbdParameter("scripts", "whether <(SCRIPT) in the expression may run scripts (false)"),
            new NbdParameter("allocator", "sparse, the only one there is (sparse)"),
        ],
        Create)
    {
        MagicParameter = "data",
        TakesOtherParameters = true,
    };

    private static DataPlugin Create(NbdParameters parameters)
    {
        string? text = parameters.Text("data");
        string? raw = parameters.Text("raw");
        string? base64 = parameters.Text("base64");
        if (new[] { text, raw, base64 }.Count(given => given is not null) != 1)
        {
            throw new ArgumentException("data: exactly one of the parameters data=, raw= and base64= must be given.");
        }
        if (parameters.Text("allocator") is not (null or "sparse") and var allocator)
        {
            throw new ArgumentException($"data: allocator={allocator}: there is only the allocator sparse.");
        }
        string[] variables = [.. parameters.All.Select(pair => pair.Key).Except(Entry.Parameters.Select(known => known.Name))];
        if (text is null && variables.Length > 0)
        {
            throw new ArgumentException($"data: {variables[0]}= is a variable, and only data= has variables.");
        }
        if (variables.FirstOrDefault(name => parameters.Texts(name).Count > 1) is { } twice)
        {
            throw new ArgumentException($"data: the variable {twice}= was given more than once.");
        }
        try
        {
            return new DataPlugin
            {
                Data = raw is not null ? Encoding.UTF8.GetBytes(raw)
                    : base64 is not null ? Convert.FromBase64String(base64)
                    : default,
                Expression = text is null ? null : DataExpression.Parse(text, new DataExpressionOptions
                {
                    AllowsScripts = parameters.Boolean("scripts") ?? false,
                    Variables = variables.ToDictionary(name => name, parameters.Required),
                    UsesEnvironment = true,
                }),
                Size = parameters.Size("size"),
            };
        }
        catch (FormatException e)
        {
            throw new ArgumentException(text is null ? $"data: base64={base64}: {e.Message}" : e.Message, e);
        }
    }
}
