// Who answers: here the server. A page without one (hrm export --page) has another file in this place.

export const send = (path, options) => fetch(path, options);
