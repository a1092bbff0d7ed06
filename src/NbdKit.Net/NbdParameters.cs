namespace NbdKit;

/// <summary>The parameters given to one plugin or filter of the catalogue, read by name and type.</summary>
/// <remarks>Every method returns null for a parameter that was not given, and names the parameter if its value is wrong.</remarks>
public sealed class NbdParameters
{
    private readonly string _owner;
    private readonly Dictionary<string, List<string>> _values = new(StringComparer.Ordinal);

    /// <summary>Creates the parameters of one layer.</summary>
    /// <param name="owner">The layer's name, for error messages.</param>
    /// <param name="values">Names and values, in the order given.</param>
    public NbdParameters(string owner, IEnumerable<KeyValuePair<string, string>> values)
    {
        _owner = owner;
        foreach ((string name, string value) in values)
        {
            if (!_values.TryGetValue(name, out List<string>? given))
            {
                _values.Add(name, given = []);
            }
            given.Add(value);
        }
    }

    /// <summary>The names of the parameters that were given, in that order.</summary>
    public IReadOnlyCollection<string> Names => [.. _values.Keys];

    /// <summary>The value as it was written.</summary>
    /// <param name="name">The parameter.</param>
    public string? Text(string name) => _values.TryGetValue(name, out List<string>? given) ? given[^1] : null;

    /// <summary>The values of a parameter that may be repeated, in order; empty if not given.</summary>
    /// <param name="name">The parameter.</param>
    public IReadOnlyList<string> Texts(string name) => _values.TryGetValue(name, out List<string>? given) ? [.. given] : [];

    /// <summary>A value that must have been given.</summary>
    /// <param name="name">The parameter.</param>
    /// <exception cref="ArgumentException">It was not given.</exception>
    public string Required(string name)
        => Text(name) ?? throw new ArgumentException($"{_owner}: the parameter {name}= is required.", name);

    /// <summary>A size in bytes; see <see cref="NbdParse.Size"/>.</summary>
    /// <param name="name">The parameter.</param>
    /// <exception cref="ArgumentException">The value is not a size.</exception>
    public long? Size(string name) => Parse(name, NbdParse.Size);

    /// <summary>A switch; see <see cref="NbdParse.Boolean"/>.</summary>
    /// <param name="name">The parameter.</param>
    /// <exception cref="ArgumentException">The value is not a switch.</exception>
    public bool? Boolean(string name) => Parse(name, NbdParse.Boolean);

    /// <summary>A delay; see <see cref="NbdParse.Delay"/>.</summary>
    /// <param name="name">The parameter.</param>
    /// <exception cref="ArgumentException">The value is not a delay.</exception>
    public TimeSpan? Delay(string name) => Parse(name, NbdParse.Delay);

    /// <summary>A probability; see <see cref="NbdParse.Probability"/>.</summary>
    /// <param name="name">The parameter.</param>
    /// <exception cref="ArgumentException">The value is not a probability.</exception>
    public double? Probability(string name) => Parse(name, NbdParse.Probability);

    /// <summary>A whole number from 0 to 2^31-1; see <see cref="NbdParse.Integer"/>.</summary>
    /// <param name="name">The parameter.</param>
    /// <exception cref="ArgumentException">The value is not such a number.</exception>
    public int? Integer(string name) => Parse(name, text => (int)NbdParse.Integer(text, 0, int.MaxValue));

    /// <summary>One of several words.</summary>
    /// <typeparam name="T">What the words mean.</typeparam>
    /// <param name="name">The parameter.</param>
    /// <param name="words">The words and their meanings.</param>
    /// <exception cref="ArgumentException">The value is none of them.</exception>
    public T? OneOf<T>(string name, params (string Word, T Meaning)[] words)
        where T : struct
        => Parse(name, text =>
        {
            foreach ((string word, T meaning) in words)
            {
                if (word == text)
                {
                    return meaning;
                }
            }
            throw new FormatException($"'{text}' is not one of {string.Join(", ", words.Select(w => w.Word))}.");
        });

    private T? Parse<T>(string name, Func<string, T> parse)
        where T : struct
    {
        if (Text(name) is not { } text)
        {
            return null;
        }
        try
        {
            return parse(text);
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"{_owner}: {name}={text}: {e.Message}", name, e);
        }
    }
}
